// Package scrub takes secrets out of what an upstream answers: the promise
// that an injected secret never comes back.
//
// What is recognised, of every secret of at least MinLength bytes:
//
//   - the secret itself;
//   - its base64, with the standard or the URL alphabet or both mixed, at all
//     three alignments, so also inside of a longer text such as "user:secret";
//   - its hexadecimal digits, in either case, mixed;
//   - each of these with any number of its characters written as a percent
//     escape (%2b, a space as +) or a JSON escape (a \u escape, with surrogate
//     pairs, or \/ \" \\ \b \f \n \r \t), in either case, mixed.
//
// At its ends base64 shares characters with its neighbours; those carry at
// most four bits of the first and the last byte and stay. What is not
// recognised: any escape applied twice, base64 broken into lines, HTML
// entities, UTF-16, other compressions and transformations; undoing
// Content-Encoding is for the caller.
//
// A hit becomes [REDACTED:<ref>]. Hits that overlap are taken out as one, with
// one marker for each secret that adds to it. The result does not depend on
// how a body is cut into reads, and no byte is held back unless it is in what
// may be the beginning of a hit.
//
// The work grows linearly with the body, whatever is in it. A body without a
// hit is searched by leaps, see index.
//
// The package is pure: it knows no HTTP and no Caddy. A Scrubber never
// changes and may be shared; a Reader belongs to one stream.
package scrub
