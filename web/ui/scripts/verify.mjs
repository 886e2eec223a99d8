// Builds into a new folder and compares with the committed dist, byte by byte.
// Compressed siblings depend on Node's zlib and brotli: under another Node version than .node-version their content is compared.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';

const committed = resolve('dist');
const fresh = mkdtempSync(join(tmpdir(), 'nilometer-ui-'));
const run = (...command) => {
  const done = spawnSync(process.execPath, command, { stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
};
run('node_modules/vite/bin/vite.js', 'build', '--outDir', fresh, '--emptyOutDir', '--logLevel', 'warn');
run('scripts/finish.mjs', fresh);

const list = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => relative(folder, join(e.parentPath, e.name)))
    .sort();
const sameNode = process.version === `v${readFileSync('.node-version', 'utf8').trim()}`;
const unpack = (name, bytes) =>
  sameNode ? bytes : name.endsWith('.gz') ? gunzipSync(bytes) : name.endsWith('.br') ? brotliDecompressSync(bytes) : bytes;
const [have, want] = [list(committed), list(fresh)];
const wrong = [
  ...have.filter((f) => !want.includes(f)).map((f) => `${f}: committed, but not built`),
  ...want.filter((f) => !have.includes(f)).map((f) => `${f}: built, but not committed`),
  ...want
    .filter((f) => have.includes(f) && !unpack(f, readFileSync(join(committed, f))).equals(unpack(f, readFileSync(join(fresh, f)))))
    .map((f) => `${f}: differs`),
];
rmSync(fresh, { recursive: true });
if (wrong.length > 0) {
  console.error(`dist is not what its source builds:\n${wrong.join('\n')}\nrun npm run build and commit dist`);
  process.exit(1);
}
console.log(
  `${want.length} files of dist are what their source builds${sameNode ? '' : ' (compressed siblings compared by content: other Node version)'}`,
);
