// After `vite build`: the licence texts of what was bundled, and a .gz and .br beside every text file.
// Output depends on the input bytes and the Node version (.node-version) only: no times, no paths.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const dist = resolve(process.argv[2] ?? 'dist');

function licences() {
  const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'));
  // What the named ones bring along is bundled, too.
  const names = new Set();
  const visit = (name) => {
    if (names.has(name)) return;
    names.add(name);
    const own = JSON.parse(readFileSync(join('node_modules', name, 'package.json'), 'utf8'));
    for (const d of Object.keys(own.dependencies ?? {})) visit(d);
  };
  for (const name of Object.keys(dependencies)) visit(name);
  let text = 'The pages of Nilometer contain these packages.\n';
  for (const name of [...names].sort()) {
    const folder = join('node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((f) => /^licen[cs]e(\.(md|txt))?$/i.test(f));
    if (!file) throw new Error(`${name} has no licence file`);
    text += `\n${'='.repeat(78)}\n${name} ${version} (${license})\n${'='.repeat(78)}\n\n${readFileSync(join(folder, file), 'utf8').replace(/\r\n/g, '\n').trim()}\n`;
  }
  return text;
}

writeFileSync(join(dist, 'third-party-licenses.txt'), licences());
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  // index.html has a placeholder: the server fills it in and compresses the result itself, if it wants to.
  if (!entry.isFile() || !/\.(js|css|svg|txt)$/.test(entry.name)) continue;
  const file = join(entry.parentPath, entry.name);
  const bytes = readFileSync(file);
  // zlib's gzip header carries no time and no name; the byte that names the system is set to "unknown".
  const gz = gzipSync(bytes, { level: 9 });
  gz[9] = 255;
  writeFileSync(`${file}.gz`, gz);
  writeFileSync(
    `${file}.br`,
    brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } }),
  );
}
