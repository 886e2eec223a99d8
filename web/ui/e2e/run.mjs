// `node e2e/run.mjs --url http://127.0.0.1:PORT[/prefix] [--shots DIR] [--chromium FILE] [--only WORD]`
// Loads every page in a real browser and works it a little. Fails on console errors, page errors, failed requests,
// CSP violations, requests to other hosts, and serious or critical findings of axe. Ends with `N passed, N failed`.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import puppeteer from 'puppeteer-core';
import { checks } from './checks.mjs';

const { values: o } = parseArgs({
  options: {
    url: { type: 'string' },
    shots: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
    only: { type: 'string', default: '' },
  },
});
if (!o.url) throw new Error('say --url http://127.0.0.1:PORT');
const root = o.url.replace(/\/+$/, '');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
if (o.shots) mkdirSync(o.shots, { recursive: true });

// Parts a server may lack; the pages show what is there.
const optional = /\/api\/v1\/status\/(runtimeinfo|flags|config)$/;

const profile = mkdtempSync(join(tmpdir(), 'nilometer-e2e-'));
const browser = await puppeteer.launch({
  executablePath: o.chromium,
  userDataDir: profile,
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

let passed = 0;
let failed = 0;

/** A page that collects everything that must not happen. */
async function open(theme, width) {
  const page = await browser.newPage();
  const faults = [];
  await page.setViewport({ width, height: width < 500 ? 860 : 900 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }]);
  // Runs outside the page's own scripts, so the CSP stays on.
  await page.evaluateOnNewDocument(() => {
    document.addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI}`));
  });
  page.on('console', (m) => {
    if (m.type() !== 'error') return;
    const from = m.location()?.url ?? '';
    if (optional.test(from.split('?')[0]) && m.text().includes('404')) return;
    faults.push(`console: ${m.text()} ${from}`);
  });
  page.on('dialog', (d) => {
    faults.push(`a dialog: ${d.message()}`);
    void d.dismiss();
  });
  page.on('pageerror', (e) => faults.push(`page error: ${e.message}`));
  page.on('requestfailed', (r) => {
    // Superseded requests are aborted on purpose.
    if (r.failure()?.errorText !== 'net::ERR_ABORTED') faults.push(`request failed: ${r.url()} ${r.failure()?.errorText}`);
  });
  page.on('request', (r) => {
    if (!r.url().startsWith(new URL(root).origin)) faults.push(`request to another host: ${r.url()}`);
  });
  page.on('response', (r) => {
    if (r.status() >= 400 && !(r.status() === 404 && optional.test(r.url().split('?')[0]))) faults.push(`HTTP ${r.status()}: ${r.url()}`);
    if (r.request().resourceType() === 'document' && !/default-src 'self'/.test(r.headers()['content-security-policy'] ?? ''))
      faults.push(`no CSP header on ${r.url()}`);
  });
  return { page, faults };
}

async function accessible(page) {
  // Through the debugger, not through a script tag: the CSP forbids those.
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations
    .filter((v) => v.impact === 'serious' || v.impact === 'critical')
    .map(
      (v) =>
        `axe ${v.impact}: ${v.id} (${v.help}) at ${v.nodes
          .slice(0, 3)
          .map((n) => `${n.target.join(' ')}${n.any[0]?.message ? ` [${n.any[0].message}]` : ''}`)
          .join('; ')}`,
    );
}

const settled = (page) => page.waitForFunction(() => document.body.dataset.ready === 'true', { timeout: 10_000 });

for (const check of checks) {
  if (!check.name.includes(o.only)) continue;
  for (const [theme, width] of check.once
    ? [['light', 1400]]
    : [
        ['light', 1400],
        ['dark', 1400],
        ['light', 400],
        ['dark', 400],
      ]) {
    const name = `${check.name} ${theme} ${width}`;
    const { page, faults } = await open(theme, width);
    try {
      await page.goto(root + check.path, { waitUntil: 'domcontentloaded', timeout: 10_000 });
      await settled(page);
      await check.run?.({ page, root, theme, width, settled: () => settled(page) });
      if (check.tolerates) faults.splice(0, faults.length, ...faults.filter((f) => !check.tolerates.test(f)));
      if (!check.once) {
        faults.push(...(await accessible(page)));
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (wide > 0) faults.push(`the page is ${wide} px wider than the window`);
      }
      if (o.shots) await page.screenshot({ path: join(o.shots, `${name.replace(/[^a-z0-9]+/gi, '-').toLowerCase()}.png`) });
    } catch (error) {
      faults.push(`${error.message}`);
      if (o.shots)
        await page.screenshot({ path: join(o.shots, `failed-${name.replace(/[^a-z0-9]+/gi, '-').toLowerCase()}.png`) }).catch(() => {});
    }
    if (faults.length === 0) passed += 1;
    else {
      failed += 1;
      console.log(`FAILED ${name}\n  ${[...new Set(faults)].join('\n  ')}`);
    }
    await page.close();
  }
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
