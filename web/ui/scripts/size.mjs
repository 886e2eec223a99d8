// Fails when the pages are heavier than promised. First page: index.html, what it names, and what those import statically.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';

const dist = resolve(process.argv[2] ?? 'dist');
const budget = { first: 90_000, all: 350_000 };
const gz = (file) => (existsSync(`${file}.gz`) ? statSync(`${file}.gz`).size : gzipSync(readFileSync(file), { level: 9 }).length);

const files = readdirSync(dist, { recursive: true, withFileTypes: true })
  .filter((e) => e.isFile() && !/\.(gz|br|txt)$/.test(e.name))
  .map((e) => join(e.parentPath, e.name));
const first = new Set();
const visit = (file) => {
  if (first.has(file) || !existsSync(file)) return;
  first.add(file);
  if (!file.endsWith('.js')) return;
  for (const [, path] of readFileSync(file, 'utf8').matchAll(
    /(?:^|[;}\s])(?:import|export)\s*(?:[\w*{}\s,$]+\s*from\s*)?["'](\.[^"']+)["']/g,
  ))
    visit(normalize(join(dirname(file), path)));
};
const page = join(dist, 'index.html');
visit(page);
for (const [, path] of readFileSync(page, 'utf8').matchAll(/(?:src|href)="\.\/([^"]+)"/g)) visit(join(dist, path));

let sumFirst = 0;
let sumAll = 0;
for (const file of files.sort()) {
  const size = gz(file);
  sumAll += size;
  if (first.has(file)) sumFirst += size;
  console.log(`${String(size).padStart(8)} ${first.has(file) ? 'first' : 'later'} ${file.slice(dist.length + 1)}`);
}
console.log(`first page ${sumFirst} of ${budget.first} bytes gzip, everything ${sumAll} of ${budget.all}`);
if (sumFirst > budget.first || sumAll > budget.all) {
  console.error('over budget');
  process.exit(1);
}
