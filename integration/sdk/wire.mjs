// What the scripts of this folder share. Each drives one vendor's own library,
// unchanged, and prints what the library made of the answers as one JSON object.

const results = {};

// note keeps a result under a name.
export function note(name, value) {
  results[name] = value;
}

// refused calls f, which must fail, and keeps what an agent sees of the error.
export async function refused(name, f) {
  try {
    note(name, { returned: await f() });
  } catch (e) {
    const header = (n) => e.headers?.get?.(n) ?? e.response?.headers?.[n] ?? e.headers?.[n] ?? null;
    note(name, {
      class: e.constructor.name,
      status: e.status ?? e.statusCode ?? null,
      message: e.message,
      vaultError: header('vault-error'),
    });
  }
}

// step tells the stand-in that what it sent last has arrived. It sends no more
// before that: a stream that is held back anywhere would stand still.
export async function step() {
  await fetch(process.env.STANDIN_STEP, { method: 'POST' });
}

export function report() {
  process.stdout.write(JSON.stringify(results));
}
