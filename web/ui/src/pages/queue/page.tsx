/** One reader of one queue: where it stands, its alerts, the four standard charts. The span is in the URL. */
import './queue.css';
import { useEffect, useMemo } from 'preact/hooks';
import { call } from '../../api/client';
import { now } from '../../api/clock';
import { useResource } from '../../api/resource';
import type { Alert, QueryData } from '../../api/types';
import { Plot } from '../../chart/plot';
import { grid } from '../../chart/series';
import { format, human, parse } from '../../format/duration';
import { count, exact, rate, UNKNOWN } from '../../format/number';
import { dateTime, parseDateTime, rfc3339 } from '../../format/time';
import { alertTone, Badge } from '../../parts/badge';
import { Icon } from '../../parts/icons';
import { Empty, ErrorBox, Skeleton } from '../../parts/states';
import { Ago } from '../../parts/time';
import { href, location, setParams } from '../../router';
import { zone } from '../../settings';
import { defaultPanel, encodePanels, stepOf } from '../explore/url';
import { concerns, parseOverview, type Row } from '../overview/model';
import { keyLabels, overviewFor, type ReaderLabels } from '../overview/query';
import { type ChartSpec, chartExpression, chartSeries, charts } from './charts';

const ranges = ['15m', '1h', '6h', '1d', '7d', '28d'];

interface Span {
  range: number;
  /** ms; null is now. */
  end: number | null;
}

export function QueuePage() {
  const { params } = location.value;
  const labels = useMemo(() => Object.fromEntries(keyLabels.map((k) => [k, params.get(k) ?? ''])) as ReaderLabels, [params]);
  const id = keyLabels.map((k) => labels[k]).join('\u0000');
  const span: Span = { range: parse(params.get('range') ?? '') || 3_600_000, end: parseDateTime(params.get('end') ?? '', 'utc') ?? null };

  const state = useResource(`queue:${id}`, async (signal) => {
    const { data } = await call<QueryData>('query', { query: overviewFor(labels) }, { signal, post: true });
    return parseOverview(data.resultType === 'vector' ? data.result : []).rows[0];
  });
  const alerts = useResource('alerts', async (signal) => (await call<{ alerts: Alert[] }>('alerts', {}, { signal })).data.alerts);
  const own = useMemo(() => (alerts.data ?? []).filter((a) => concerns(a.labels, labels)), [alerts.data, id]);

  useEffect(() => {
    if (labels.queue !== '') document.title = `${labels.queue} · Nilometer`;
  }, [labels.queue]);

  if (labels.queue === '') {
    return (
      <div class="page">
        <Empty title="Which queue?">
          <p>
            This page shows one queue; choose it on the <a href={href('/')}>overview</a>.
          </p>
        </Empty>
      </div>
    );
  }
  const goTo = (next: Span) =>
    setParams({ range: format(next.range), end: next.end === null ? undefined : dateTime(next.end, 'utc') }, { replace: false });
  const place = [
    ['System', labels.system],
    ['Cluster', labels.cluster],
    ['Virtual host', labels.vhost],
    ['Group', labels.group],
    ['Job', labels.job],
  ].filter(([, v]) => v !== '');

  return (
    <div class="page">
      <nav class="crumbs" aria-label="Breadcrumb">
        <a href={href('/')}>Overview</a>
        <Icon name="chevron" />
        <a href={href('/', { q: labels.system })}>{labels.system || 'no system'}</a>
      </nav>
      <div class="queue-head">
        <h1>{labels.queue}</h1>
        <dl class="place">
          {place.map(([k, v]) => (
            <div key={k}>
              <dt>{k}</dt>
              <dd>{v}</dd>
            </div>
          ))}
        </dl>
      </div>
      {state.error ? <ErrorBox error={state.error} /> : null}
      {state.data ? (
        <Facts row={state.data} />
      ) : state.loading ? (
        <Skeleton rows={2} />
      ) : state.error ? null : (
        <div class="card note">
          Nothing is known of this queue right now: it is gone, or its broker does not answer (see <a href={href('/targets')}>Targets</a>).
          What was stored before is below.
        </div>
      )}
      {own.length > 0 ? <OwnAlerts alerts={own} /> : null}
      <div class="toolbar queue-toolbar">
        <span class="segments" role="group" aria-label="Range">
          {ranges.map((r) => (
            <button
              key={r}
              type="button"
              aria-pressed={span.end === null && span.range === parse(r)}
              onClick={() => goTo({ range: parse(r) as number, end: null })}
            >
              {r}
            </button>
          ))}
        </span>
        {span.end === null ? null : (
          <>
            <span class="muted">
              {dateTime(span.end - span.range, zone.value)} – {dateTime(span.end, zone.value)}
            </span>
            <button type="button" class="button small" onClick={() => goTo({ range: span.range, end: null })}>
              Back to now
            </button>
          </>
        )}
        <span class="toolbar-count muted">Drag in a chart to zoom, double click to zoom out.</span>
      </div>
      <div class="charts">
        {charts.map((spec) => (
          <Chart
            key={spec.id}
            spec={spec}
            labels={labels}
            id={id}
            span={span}
            onZoom={(a, b) => goTo({ range: Math.max(1000, Math.round((b - a) / 1000) * 1000), end: Math.round(b / 1000) * 1000 })}
            onZoomOut={() => {
              const end = span.end === null ? null : span.end + span.range / 2;
              goTo({ range: span.range * 2, end: end === null || end >= now() ? null : end });
            }}
          />
        ))}
      </div>
    </div>
  );
}

function Facts({ row }: { row: Row }) {
  const over = row.lagState === 'over';
  const idle = row.consumers === 0 && (row.ready ?? 0) > 0;
  const facts: { name: string; value: string; note: string; title?: string; bad?: boolean; warn?: boolean }[] = [
    { name: 'Ready', value: count(row.ready), note: 'waiting', title: exact(row.ready) },
    { name: 'In flight', value: count(row.inFlight), note: 'not yet acknowledged', title: exact(row.inFlight) },
    { name: 'In', value: row.inRate === undefined ? UNKNOWN : `${rate(row.inRate)}/s`, note: 'put in, 5 min rate' },
    { name: 'Out', value: row.outRate === undefined ? UNKNOWN : `${rate(row.outRate)}/s`, note: 'finished, 5 min rate' },
    {
      name: 'Lag',
      value: human(row.lag),
      note:
        row.slo === undefined
          ? 'no objective known'
          : over
            ? `over the objective of ${human(row.slo)}`
            : row.lagState === 'near'
              ? `near the objective of ${human(row.slo)}`
              : `objective ${human(row.slo)}`,
      bad: over,
      warn: row.lagState === 'near',
    },
    {
      name: 'Drains in',
      value: human(row.drain),
      note: row.drain === Number.POSITIVE_INFINITY ? 'does not drain at present' : 'at the present rates',
    },
    { name: 'Consumers', value: count(row.consumers), note: idle ? 'messages wait, nobody reads' : 'attached', bad: idle },
    { name: 'Dead', value: count(row.dead), note: 'parked for good', warn: (row.dead ?? 0) > 0 },
  ];
  return (
    <div class="facts card">
      {facts.map((f) => (
        <div key={f.name} class={f.bad ? 'fact bad' : f.warn ? 'fact warn' : 'fact'} title={f.title}>
          <span class="tile-name">{f.name}</span>
          <span class="fact-value">
            {f.bad || f.warn ? <Icon name="warn" /> : null}
            {f.value}
          </span>
          <span class="tile-note">{f.note}</span>
        </div>
      ))}
    </div>
  );
}

function OwnAlerts({ alerts }: { alerts: Alert[] }) {
  const order = (a: Alert) => (a.state === 'firing' ? 0 : 1);
  return (
    <div class="card own-alerts">
      <ul>
        {[...alerts]
          .sort((a, b) => order(a) - order(b))
          .map((a, i) => (
            <li key={i}>
              <Badge tone={alertTone(a.state)}>{a.state}</Badge>
              <a href={href('/alerts', { q: a.labels['alertname'] })}>{a.labels['alertname']}</a>
              <span class="own-summary">{a.annotations['summary'] ?? a.annotations['description'] ?? ''}</span>
              <span class="muted">
                <Ago ms={rfc3339(a.activeAt)} />
              </span>
            </li>
          ))}
      </ul>
    </div>
  );
}

interface ChartProps {
  spec: ChartSpec;
  labels: ReaderLabels;
  id: string;
  span: Span;
  onZoom: (startMs: number, endMs: number) => void;
  onZoomOut: () => void;
}

function Chart({ spec, labels, id, span, onZoom, onZoomOut }: ChartProps) {
  const stepMs = stepOf(span.range, { type: 'auto', density: 'medium' });
  const step = stepMs / 1000;
  const result = useResource(
    `${spec.id}:${id}:${span.range}:${span.end}`,
    async (signal) => {
      const end = span.end === null ? (Math.floor(now() / stepMs) * stepMs) / 1000 : span.end / 1000;
      const start = Number((end - span.range / 1000).toFixed(3));
      const window = format(Math.max(300_000, 4 * stepMs));
      const { data } = await call<QueryData>(
        'query_range',
        { query: chartExpression(spec, labels, window), start, end, step },
        { signal, post: true },
      );
      const x = grid(start, end, step);
      return { x, start, end, series: chartSeries(spec, data.resultType === 'matrix' ? data.result : [], start, step, x.length) };
    },
    span.end === null ? Math.min(step, 60) : Number.POSITIVE_INFINITY,
  );
  const explore = encodePanels(
    spec
      .explore(labels)
      .map((expr) => ({ ...defaultPanel, expr, tab: 'graph' as const, range: span.range, end: span.end, stacked: spec.stacked ?? false })),
  );
  const { data } = result;
  return (
    <section class="card chart" aria-label={spec.title}>
      <div class="card-head">
        <h2>{spec.title}</h2>
        <span class="muted chart-note">{spec.note}</span>
        <span class="grow" />
        <a class="button small" href={href('/explore', explore)}>
          <Icon name="link" />
          Explore
        </a>
      </div>
      <div class="chart-body">
        {result.error ? <ErrorBox error={result.error} /> : null}
        {data ? (
          data.series.length === 0 ? (
            <div class="note">Nothing is stored in this span; this broker may not report it.</div>
          ) : (
            <div class={result.stale ? 'stale' : undefined}>
              <ul class="chart-legend">
                {data.series.map((s) => (
                  <li key={s.name}>
                    <i class={s.reference ? 'swatch reference' : `swatch c${s.color}`} />
                    {s.name}
                  </li>
                ))}
              </ul>
              <Plot
                x={data.x}
                series={data.series}
                span={[data.start, data.end]}
                label={`${spec.title} of ${labels.queue}`}
                stacked={spec.stacked ?? false}
                filled={spec.filled ?? false}
                fromZero
                height={210}
                show={spec.show}
                unit={spec.unit}
                sync="queue"
                tip="all"
                onZoom={onZoom}
                onZoomOut={onZoomOut}
              />
            </div>
          )
        ) : result.error ? null : (
          <Skeleton rows={5} />
        )}
      </div>
    </section>
  );
}
