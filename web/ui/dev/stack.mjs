// `node dev/stack.mjs --prometheus FILE [--promtool FILE] [--rules FILE] [--port N] [--prefix /p] [--many N] [--history MINUTES] [--data DIR] [--metrics-port N]`
// Starts the make-believe farm, a real Prometheus that scrapes it every 2 s, and the UI server in front of it.
// With --upstream URL neither farm nor Prometheus is started: the UI is served in front of that server.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { exposition, history, jobs } from './metrics.mjs';
import { listen, uiServer } from './static.mjs';

const { values: o } = parseArgs({
  options: {
    prometheus: { type: 'string' },
    promtool: { type: 'string' },
    rules: { type: 'string' },
    port: { type: 'string', default: '9190' },
    prefix: { type: 'string', default: '' },
    many: { type: 'string', default: '0' },
    history: { type: 'string', default: '0' },
    data: { type: 'string' },
    'metrics-port': { type: 'string', default: '19191' },
    upstream: { type: 'string' },
  },
});
const dist = join(dirname(dirname(fileURLToPath(import.meta.url))), 'dist');
const many = Number(o.many);
let upstream = o.upstream;

async function startPrometheus() {
  const folder = o.data ?? mkdtempSync(join(tmpdir(), 'nm-ui-'));
  mkdirSync(join(folder, 'data'), { recursive: true });
  const metrics = http.createServer((req, res) => {
    const job = new URL(req.url, 'http://localhost').pathname.slice(1);
    if (!jobs.includes(job)) {
      res.writeHead(404);
      return res.end();
    }
    res.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
    res.end(exposition(job, Date.now(), { many }));
  });
  const metricsPort = await listen(metrics, Number(o['metrics-port']));
  const probe = http.createServer();
  const port = await listen(probe);
  probe.close();
  const scrape = jobs
    .map((job) => `- job_name: ${job}\n  metrics_path: /${job}\n  static_configs: [{targets: ['127.0.0.1:${metricsPort}']}]\n`)
    .join('');
  writeFileSync(
    join(folder, 'prometheus.yml'),
    `global: {scrape_interval: 2s, evaluation_interval: 5s}\n${o.rules ? `rule_files: ['${o.rules}']\n` : ''}scrape_configs:\n${scrape}- job_name: prometheus\n  static_configs: [{targets: ['127.0.0.1:${port}']}]\n- job_name: nsq\n  static_configs: [{targets: ['127.0.0.1:1'], labels: {cluster: "down & out"}}]\n`,
  );
  if (o.promtool && Number(o.history) > 0) {
    const now = Math.floor(Date.now() / 1000) * 1000;
    writeFileSync(
      join(folder, 'history.om'),
      history(now - Number(o.history) * 60_000, now, 15_000, () => `127.0.0.1:${metricsPort}`, { many }),
    );
    const made = spawnSync(o.promtool, ['tsdb', 'create-blocks-from', 'openmetrics', join(folder, 'history.om'), join(folder, 'data')], {
      encoding: 'utf8',
    });
    if (made.status !== 0) throw new Error(made.stderr);
  }
  const child = spawn(
    o.prometheus,
    [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=warn',
    ],
    { stdio: 'inherit' },
  );
  const stop = () => child.kill('SIGTERM');
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  child.on('exit', (code) => process.exit(code ?? 1));
  return `http://127.0.0.1:${port}`;
}

if (!upstream) {
  if (!o.prometheus) throw new Error('say --prometheus FILE or --upstream URL');
  upstream = await startPrometheus();
}
const port = await listen(uiServer({ dist, prefix: o.prefix, upstream }), Number(o.port));
console.log(`UI http://127.0.0.1:${port}${o.prefix}/ in front of ${upstream}`);
