import { Octokit } from '@octokit/rest';
import { note, refused, report } from './wire.mjs';

const octokit = new Octokit({ baseUrl: process.env.GITHUB_API_URL, auth: process.env.GITHUB_TOKEN });
const repo = { owner: 'o', repo: 'r' };

const got = await octokit.rest.repos.get(repo);
note('repo', got.data.full_name);
note('limit', got.headers['x-ratelimit-remaining']);

// Octokit sends the slash of the path encoded.
const file = await octokit.rest.repos.getContent({ ...repo, path: 'docs/read me.md' });
note('content', Buffer.from(file.data.content, 'base64').toString());
const raw = await octokit.rest.repos.getContent({ ...repo, path: 'docs/read me.md', mediaType: { format: 'raw' } });
note('raw', raw.data);

// The next page is an absolute URL of the upstream's.
const issues = await octokit.paginate(octokit.rest.issues.listForRepo, { ...repo, per_page: 2 });
note('issues', issues.map((i) => i.number));
const pages = [];
for await (const page of octokit.paginate.iterator(octokit.rest.issues.listForRepo, { ...repo, per_page: 2 })) {
  pages.push(page.data.length);
}
note('pages', pages);

// A repository that was renamed: 301 to an absolute URL.
const renamed = await octokit.rest.repos.get({ owner: 'o', repo: 'old' });
note('renamed', renamed.data.full_name);
const renamedIssue = await octokit.rest.issues.create({ owner: 'o', repo: 'old', title: 'Ünïcode', body: 'a\nb' });
note('renamedIssue', renamedIssue.data.title);

const created = await octokit.rest.issues.create({ ...repo, title: 'Ünïcode', body: 'a\nb' });
note('created', created.data.title);
note('createdStatus', created.status);

await refused('notModified', () => octokit.rest.repos.get({ ...repo, headers: { 'if-none-match': got.headers.etag } }));
await refused('upstreamRefuses', () => octokit.rest.repos.get({ owner: 'o', repo: 'private' }));
await refused('vaultRefuses', () => octokit.rest.pulls.merge({ ...repo, pull_number: 1 }));
await refused('noEndpoint', () => octokit.rest.repos.delete(repo));

// The archive is elsewhere: its address comes back, and is fetched without the token.
const archive = await octokit.rest.repos.downloadTarballArchive({ ...repo, ref: 'main', request: { redirect: 'manual' } }).catch((e) => e.response);
note('archive', [archive.status, archive.headers.location]);

report();
