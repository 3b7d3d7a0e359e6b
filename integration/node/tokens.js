// Issues and verifies tokens as the existing system does.
//   node tokens.js sign <key> <claims as JSON> <seconds>
//   node tokens.js verify <key> <audience> <token>
const jwt = require('jsonwebtoken');
const [verb, key, a, b] = process.argv.slice(2);
if (verb === 'sign') {
  process.stdout.write(jwt.sign(JSON.parse(a), key, { expiresIn: Number(b) }));
} else {
  process.stdout.write(JSON.stringify(jwt.verify(b, key, { audience: a })));
}
