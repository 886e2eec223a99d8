/** What this server is and holds. Each part asks for itself: one that the server lacks takes nothing else down. */
import './status.css';
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { ApiError, call } from '../../api/client';
import { type Resource, useResource } from '../../api/resource';
import type { NamedCount, TsdbStatus } from '../../api/types';
import { bytes, count } from '../../format/number';
import { rfc3339 } from '../../format/time';
import { Icon } from '../../parts/icons';
import { CopyButton, ErrorBox, Skeleton } from '../../parts/states';
import { Ago, Moment } from '../../parts/time';
import { location, setParams } from '../../router';
import { words } from './words';

type Facts = Record<string, unknown>;
const status =
  <T,>(name: string) =>
  async (signal: AbortSignal) =>
    (await call<T>(`status/${name}`, {}, { signal })).data;
const absent = (r: Resource<unknown>) => r.error instanceof ApiError && r.error.status === 404;

export function StatusPage() {
  const build = useResource('buildinfo', status<Facts>('buildinfo'), 60);
  const runtime = useResource('runtimeinfo', status<Facts>('runtimeinfo'), 10);
  const tsdb = useResource('tsdb', status<TsdbStatus>('tsdb'), 30);
  const flags = useResource('flags', status<Record<string, string>>('flags'), Number.POSITIVE_INFINITY);
  const config = useResource('config', status<{ yaml: string }>('config'), 60);
  return (
    <div class="page">
      <div class="page-head">
        <h1>Status</h1>
      </div>
      <div class="status-grid">
        <Part title="Build" of={build}>
          {build.data ? <FactTable facts={build.data} /> : null}
        </Part>
        <Part title="Runtime" of={runtime}>
          {runtime.data ? <FactTable facts={runtime.data} /> : null}
        </Part>
      </div>
      <Part title="Storage head" of={tsdb}>
        {tsdb.data ? <Head tsdb={tsdb.data} /> : null}
      </Part>
      <Part title="Configuration" of={config} tools={config.data ? <CopyButton text={config.data.yaml} /> : null}>
        {config.data ? (
          <div class="yaml" tabIndex={0} role="region" aria-label="Configuration as loaded">
            <pre>{config.data.yaml}</pre>
          </div>
        ) : null}
      </Part>
      <Part title="Flags" of={flags}>
        {flags.data ? <Flags flags={flags.data} /> : null}
      </Part>
    </div>
  );
}

function Part({
  title,
  of,
  tools,
  children,
}: {
  title: string;
  of: Resource<unknown>;
  tools?: ComponentChildren;
  children: ComponentChildren;
}) {
  if (absent(of)) return null;
  return (
    <section class="card" aria-label={title}>
      <div class="card-head">
        <h2>{title}</h2>
        <span class="grow" />
        {tools}
      </div>
      {of.error ? (
        <div class="card-body">
          <ErrorBox error={of.error} />
        </div>
      ) : null}
      {children ?? (of.error ? null : <Skeleton rows={4} />)}
    </section>
  );
}

function FactTable({ facts }: { facts: Facts }) {
  return (
    <table class="plain">
      <tbody>
        {Object.entries(facts).map(([k, v]) => (
          <tr key={k}>
            <th scope="row" class="fact-name">
              {words(k)}
            </th>
            <td class="fact-text">
              <Value name={k} value={v} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Value({ name, value }: { name: string; value: unknown }) {
  if (typeof value === 'boolean') {
    return (
      <span class="yesno">
        <Icon name={value ? 'ok' : 'close'} />
        {value ? 'yes' : 'no'}
      </span>
    );
  }
  if (typeof value === 'string' && /time/i.test(name) && /^\d{4}-\d\d-\d\dT/.test(value)) {
    const ms = rfc3339(value);
    return (
      <>
        <Moment ms={ms} />
        {ms === undefined ? null : (
          <span class="muted">
            {' '}
            (<Ago ms={ms} />)
          </span>
        )}
      </>
    );
  }
  if (value === '' || value === null || value === undefined) return <span class="muted">—</span>;
  if (typeof value === 'number')
    return <>{Number.isSafeInteger(value) && Math.abs(value) < 1e15 ? value.toLocaleString('en-US') : String(value)}</>;
  return <>{typeof value === 'object' ? JSON.stringify(value) : String(value)}</>;
}

function Head({ tsdb }: { tsdb: TsdbStatus }) {
  const h = tsdb.headStats;
  const lists: [string, NamedCount[] | undefined, (n: number) => string][] = [
    ['Metrics with most series', tsdb.seriesCountByMetricName, count],
    ['Labels with most values', tsdb.labelValueCountByLabelName, count],
    ['Labels by memory', tsdb.memoryInBytesByLabelName, bytes],
    ['Label pairs with most series', tsdb.seriesCountByLabelValuePair, count],
  ];
  // An empty head has its bounds at the ends of the number range.
  const known = Math.abs(h.minTime) < 8.64e15 && Math.abs(h.maxTime) < 8.64e15 && h.maxTime >= h.minTime;
  return (
    <>
      <div class="head-stats">
        <Stat name="Series" value={count(h.numSeries)} />
        <Stat name="Chunks" value={count(h.chunkCount)} />
        {h.numLabelPairs === undefined ? null : <Stat name="Label pairs" value={count(h.numLabelPairs)} />}
        <Stat name="Oldest sample" value={known ? <Moment ms={h.minTime} /> : '—'} />
        <Stat name="Newest sample" value={known ? <Moment ms={h.maxTime} /> : '—'} />
      </div>
      <div class="top-lists">
        {lists.map(([title, list, show]) =>
          list && list.length > 0 ? <TopList key={title} title={title} list={list} show={show} /> : null,
        )}
      </div>
    </>
  );
}

function Stat({ name, value }: { name: string; value: ComponentChildren }) {
  return (
    <div class="stat">
      <span class="tile-name">{name}</span>
      <span class="stat-value">{value}</span>
    </div>
  );
}

function TopList({ title, list, show }: { title: string; list: NamedCount[]; show: (n: number) => string }) {
  const max = Math.max(...list.map((e) => e.value), 1);
  return (
    <div class="top-list">
      <h3>{title}</h3>
      <ol>
        {list.slice(0, 10).map((e) => (
          <li key={e.name}>
            <span class="top-name" title={e.name}>
              {e.name}
            </span>
            <span class="num">{show(e.value)}</span>
            <svg class="top-bar" viewBox="0 0 100 2" preserveAspectRatio="none" aria-hidden="true">
              <rect width={(100 * e.value) / max} height="2" />
            </svg>
          </li>
        ))}
      </ol>
    </div>
  );
}

function Flags({ flags }: { flags: Record<string, string> }) {
  const text = location.value.params.get('flag') ?? '';
  const [open, setOpen] = useState(text !== '');
  const names = Object.keys(flags)
    .filter((n) => n.includes(text) || (flags[n] ?? '').includes(text))
    .sort();
  return (
    <div>
      <div class="flag-tools">
        <label class="search">
          <span class="sr">Filter flags</span>
          <Icon name="search" />
          <input
            type="search"
            placeholder="Filter flags …"
            value={text}
            onInput={(e) => {
              setOpen(true);
              setParams({ flag: e.currentTarget.value });
            }}
          />
        </label>
        <button type="button" class="button small" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? 'Hide' : `Show ${names.length}`}
        </button>
      </div>
      {open ? (
        <table class="plain">
          <tbody>
            {names.map((n) => (
              <tr key={n}>
                <th scope="row" class="mono">
                  --{n}
                </th>
                <td class="mono fact-text">{flags[n] === '' ? <span class="muted">empty</span> : flags[n]}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
    </div>
  );
}
