// A make-believe broker farm on the common queue schema, for developing the UI against a real Prometheus.
// Every value is a closed formula of time, so history can be backfilled and a restart continues the same curves.

const Q = (job, system, queue, shape, extra = {}) => ({ job, system, queue, shape, ...extra });

/** shape: rate = messages in per second, base/swing = ready, period in seconds, grow = messages gained per second. */
const S = (rate, base, swing, period, more = {}) => ({ rate, base, swing, period, ...more });

const queues = [
  Q('redis', 'redis', 'orders', S(42, 120, 100, 1900), { vhost: '0', group: 'billing' }),
  Q('redis', 'redis', 'orders', S(42, 30, 28, 700), { vhost: '0', group: 'shipping' }),
  Q('redis', 'redis', 'orders', S(42, 0, 0, 1), { vhost: '0', group: 'audit' }),
  Q('redis', 'redis', 'events:clickstream', S(870, 9000, 8000, 2600, { slo: 300 }), { vhost: '0', group: 'warehouse' }),
  Q('redis', 'redis', 'events:clickstream', S(870, 200, 190, 500), { vhost: '0', group: 'realtime' }),
  Q('redis', 'redis', 'emails', S(3.5, 0, 0, 1, { grow: 2.4, consumers: 0 }), { vhost: '1' }),
  Q('redis', 'redis', 'thumbnails', S(11, 60, 55, 900), { vhost: '1' }),
  Q('redis', 'redis', 'Benachrichtigungen für Größe', S(1.2, 6, 5, 600), { vhost: '1' }),
  Q('redis', 'redis', '通知-キュー', S(0.8, 3, 3, 600), { vhost: '1' }),
  Q('redis', 'redis', '<script>alert("xss")</script>', S(0.5, 4, 3, 600), { vhost: '2' }),
  Q('redis', 'redis', 'quote"back\\slash\nnewline', S(0.5, 2, 2, 600), { vhost: '2' }),
  Q('redis', 'redis', "o'brien & <b>sons</b>", S(0.7, 2, 2, 800), { vhost: '2' }),
  Q(
    'redis',
    'redis',
    'a-very-long-queue-name.that-nobody-would-type.but-some-framework-generates.with-tenant-0f8fad5b-d9cb-469f-a165-70867728950e',
    S(0.3, 2, 1, 800),
    { vhost: '2' },
  ),
  ...['payments', 'invoices', 'ledger', 'refunds', 'fraud-check', 'statements'].map((name, i) =>
    Q('rabbitmq', 'rabbitmq', name, S(6 + i * 7, 20 * (i + 1), 18 * (i + 1), 800 + i * 211), { cluster: 'rabbit@prod', vhost: '/finance' }),
  ),
  Q('rabbitmq', 'rabbitmq', 'payments.dlq', { dead: 37 }, { cluster: 'rabbit@prod', vhost: '/finance' }),
  Q('rabbitmq', 'rabbitmq', 'webhooks', S(25, 0, 0, 1, { grow: 9, slo: 30 }), { cluster: 'rabbit@prod', vhost: '/' }),
  Q('rabbitmq', 'rabbitmq', 'reports', S(0, 240, 0, 1, { consumers: 0, stuck: true, inFlight: 0 }), { cluster: 'rabbit@prod', vhost: '/' }),
  Q('rabbitmq', 'rabbitmq', 'exports', S(0, 0, 0, 1, { consumers: 4, inFlight: 0 }), { cluster: 'rabbit@prod', vhost: '/' }),
  Q('rabbitmq', 'rabbitmq', 'imports', S(4, 1400, 1200, 3100, { slo: 900 }), { cluster: 'rabbit@prod', vhost: '/' }),
  ...['search-indexer', 'recommender', 'fraud', 'dwh-loader'].map((group, i) =>
    Q('kafka', 'kafka', 'user.events.v2', S(1400, 900 * (i + 1), 800 * (i + 1), 1200 + 333 * i, { slo: 120 }), {
      cluster: 'msk-eu-1',
      group,
    }),
  ),
  ...['search-indexer', 'mailer'].map((group, i) =>
    Q('kafka', 'kafka', 'catalog.changes', S(90, 40 + i * 50, 38, 1000), { cluster: 'msk-eu-1', group }),
  ),
  Q('kafka', 'kafka', 'catalog.changes.DLT', { dead: 4 }, { cluster: 'msk-eu-1' }),
  ...['ORDERS', 'SHIPMENTS', 'TELEMETRY'].map((name, i) =>
    Q('nats', 'nats', name, S(15 + 60 * i, 10 + 30 * i, 9 + 28 * i, 700 + 120 * i), {
      cluster: 'nats-core',
      vhost: 'APP',
      group: 'worker',
    }),
  ),
  ...['default', 'mailers', 'critical', 'low', 'active_storage'].map((name, i) =>
    Q('sidekiq', 'sidekiq', name, S(8 - i, 25 * i, 24 * i, 900), { vhost: '0' }),
  ),
];

const twoPi = 2 * Math.PI;

/** State of one queue at t (seconds since an arbitrary fixed origin). */
function at(shape, t, scale = 1) {
  if (shape.dead !== undefined) return { dead: shape.dead + Math.floor(t / 700) };
  const w = twoPi / shape.period;
  const cap = shape.period > 1 ? Math.min(shape.swing, (0.85 * shape.rate) / w) : 0;
  const grow = shape.grow ?? 0;
  // A growing backlog is drained every two hours by somebody with a big broom.
  const ready = Math.max(0, Math.round((shape.base + cap * Math.sin(w * t) + grow * (t % 7200)) * scale));
  const inFlight = shape.inFlight ?? Math.ceil(shape.rate / 4);
  const enqueued = Math.floor(shape.rate * t);
  const net = shape.base + cap * Math.sin(w * t) + grow * (t % 7200);
  const dequeued = shape.stuck ? 17 : Math.max(0, Math.floor(enqueued - net));
  const lag = shape.stuck ? 4200 + (t % 7200) : ready === 0 ? 0 : ready / Math.max(shape.rate - grow, 0.2);
  return {
    ready,
    inFlight,
    enqueued,
    dequeued,
    lag,
    consumers: shape.consumers ?? 1 + Math.ceil(shape.rate / 20),
    delayed: shape.rate > 30 ? Math.round(12 + 10 * Math.cos(w * t)) : 0,
    slo: shape.slo ?? 60,
  };
}

const escapeValue = (v) => v.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');

function labelText(labels) {
  const parts = Object.entries(labels)
    .filter(([, v]) => v !== undefined)
    .map(([k, v]) => `${k}="${escapeValue(String(v))}"`);
  return parts.length ? `{${parts.join(',')}}` : '';
}

const families = [
  ['queue_messages_ready', 'gauge', 'Messages that may be delivered to this reader now.', (s) => s.ready],
  ['queue_messages_in_flight', 'gauge', 'Delivered and not yet acknowledged.', (s) => s.inFlight],
  ['queue_messages_delayed', 'gauge', 'Not yet due.', (s) => s.delayed],
  ['queue_messages_dead', 'gauge', 'Parked for good.', (s) => s.dead],
  ['queue_messages_enqueued_total', 'counter', 'Messages put in.', (s) => s.enqueued],
  ['queue_messages_dequeued_total', 'counter', 'Messages finished.', (s) => s.dequeued],
  [
    'queue_lag_seconds',
    'gauge',
    'Age of the oldest unfinished message.',
    (s) => (s.lag === undefined ? undefined : Number(s.lag.toFixed(3))),
  ],
  ['queue_consumers', 'gauge', 'Readers attached.', (s) => s.consumers],
  ['queue_slo_lag_seconds', 'gauge', 'Configured lag objective.', (s) => s.slo],
];

export const jobs = [...new Set(queues.map((q) => q.job))];

function farm(many) {
  const extra = [];
  for (let i = 0; i < many; i++) {
    extra.push(
      Q('redis', 'redis', `tenant-${String(i).padStart(5, '0')}:jobs`, S(1 + (i % 50), 10 + (i % 300), 10 + (i % 300), 600 + (i % 900)), {
        vhost: String(3 + (i % 9)),
      }),
    );
  }
  return queues.concat(extra);
}

/** The exposition of one job at one moment; with `stamped` every line carries job, instance and its time (for backfill). */
export function samplesAt(job, ms, { many = 0, instance, stamped = false } = {}) {
  const t = (ms % 86_400_000) / 1000 + 90_000;
  const out = new Map();
  const put = (name, type, help, labels, value) => {
    if (value === undefined) return;
    let f = out.get(name);
    if (!f) {
      f = { type, help, lines: [] };
      out.set(name, f);
    }
    const all = stamped ? { ...labels, job, instance } : labels;
    f.lines.push(`${name}${labelText(all)} ${value}${stamped ? ` ${ms / 1000}` : ''}`);
  };
  for (const q of farm(many)) {
    if (q.job !== job) continue;
    const state = at(q.shape, t);
    const labels = { system: q.system, cluster: q.cluster, vhost: q.vhost, queue: q.queue, group: q.group };
    for (const [name, type, help, pick] of families) put(name, type, help, labels, pick(state));
  }
  const sick = job === 'nats' ? 0 : 1;
  put('queue_up', 'gauge', 'Reached, authenticated, every mandatory answer parsed.', { system: job }, 1);
  if (job === 'nats') put('queue_up', 'gauge', '', { system: job, node: 'nats-2' }, sick);
  if (job === 'rabbitmq') {
    put(
      'queue_node_memory_used_bytes',
      'gauge',
      'Memory in use.',
      { system: job, node: 'rabbit@a' },
      Math.round(9.4e8 + 5e7 * Math.sin(t / 300)),
    );
    put('queue_node_memory_limit_bytes', 'gauge', 'Mark at which the broker blocks.', { system: job, node: 'rabbit@a' }, 1e9);
    put('queue_node_alarm', 'gauge', 'Alarm raised by the broker.', { system: job, node: 'rabbit@a', alarm: 'memory' }, 1);
  }
  return out;
}

export function exposition(job, ms, options) {
  let text = '';
  for (const [name, f] of samplesAt(job, ms, options))
    text += `# HELP ${name} ${f.help}\n# TYPE ${name} ${f.type}\n${f.lines.join('\n')}\n`;
  return text;
}

/** OpenMetrics text of a span of history, for `promtool tsdb create-blocks-from openmetrics`. */
export function history(fromMs, toMs, stepMs, instanceOf, options) {
  const all = new Map();
  for (const job of jobs) {
    for (let ms = fromMs; ms <= toMs; ms += stepMs) {
      for (const [name, f] of samplesAt(job, ms, { ...options, instance: instanceOf(job), stamped: true })) {
        let g = all.get(name);
        if (!g) {
          g = { type: f.type, lines: [] };
          all.set(name, g);
        }
        for (const line of f.lines) g.lines.push(line);
      }
    }
  }
  let text = '';
  for (const [name, g] of all)
    text += `# TYPE ${g.type === 'counter' ? name.replace(/_total$/, '') : name} ${g.type}\n${g.lines.join('\n')}\n`;
  return `${text}# EOF\n`;
}
