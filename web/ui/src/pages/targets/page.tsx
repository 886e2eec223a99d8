/** Scrape pools with their targets: what is up, what is not and why. */
import './targets.css';
import { useMemo, useState } from 'preact/hooks';
import { call } from '../../api/client';
import { useResource } from '../../api/resource';
import type { LoopbackBroker, Target, Targets } from '../../api/types';
import { human } from '../../format/duration';
import { rfc3339 } from '../../format/time';
import { Badge, Labels } from '../../parts/badge';
import { Icon } from '../../parts/icons';
import { Empty, ErrorBox, Skeleton } from '../../parts/states';
import { Ago } from '../../parts/time';
import { location, setParams } from '../../router';
import { filterTargets, type Pool, poolsOf } from './model';

const healths = ['down', 'unknown', 'up'] as const;
/** A pool with more targets shows the rest on demand. */
const targetsMax = 200;

export function TargetsPage() {
  const { params } = location.value;
  const health = healths.find((h) => h === params.get('health'));
  const text = params.get('q') ?? '';
  const result = useResource('targets', async (signal) => (await call<Targets>('targets', { state: 'active' }, { signal })).data);
  const targets = result.data?.activeTargets;
  const counts = useMemo(
    () => Object.fromEntries(healths.map((h) => [h, (targets ?? []).filter((t) => t.health === h).length])),
    [targets],
  );
  const pools = useMemo(() => poolsOf(targets ?? [], filterTargets(targets ?? [], health, text)), [targets, health, text]);
  const dropped = Object.values(result.data?.droppedTargetCounts ?? {}).reduce((a, b) => a + b, 0);

  return (
    <div class="page">
      <div class="page-head">
        <h1>Targets</h1>
        <span class="segments" role="group" aria-label="Health">
          <button type="button" aria-pressed={health === undefined} onClick={() => setParams({ health: undefined })}>
            All {targets?.length ?? ''}
          </button>
          {healths.map((h) => (
            <button key={h} type="button" aria-pressed={health === h} onClick={() => setParams({ health: h })}>
              {h} {targets ? counts[h] : ''}
            </button>
          ))}
        </span>
        <label class="search">
          <span class="sr">Filter targets</span>
          <Icon name="search" />
          <input
            type="search"
            placeholder="Filter by pool, endpoint, label, error …"
            value={text}
            onInput={(e) => setParams({ q: e.currentTarget.value })}
          />
        </label>
        {dropped > 0 ? <span class="muted">{dropped} dropped by relabelling</span> : null}
      </div>
      {result.error ? <ErrorBox error={result.error} context="GET targets" /> : null}
      {targets === undefined ? (
        result.error ? null : (
          <Skeleton rows={8} />
        )
      ) : targets.length === 0 ? (
        <Empty title="No targets">
          <p>
            Nothing is scraped. Scrape jobs are listed under <code>scrape_configs</code> in the configuration; a discovery that finds
            nothing yet shows no target.
          </p>
        </Empty>
      ) : pools.length === 0 ? (
        <Empty title="No target matches">
          <p>
            <button type="button" class="button small" onClick={() => setParams({ health: undefined, q: undefined })}>
              Show all targets
            </button>
          </p>
        </Empty>
      ) : (
        pools.map((p) => <PoolView key={p.name} pool={p} />)
      )}
      <LoopbackView />
    </div>
  );
}

/** Brokers on the server's own machine: what was found, what is monitored, what was looked for in vain. */
function LoopbackView() {
  const result = useResource('brokers', async (signal) => (await call<LoopbackBroker[]>('brokers', {}, { signal, ext: true })).data, 30);
  const brokers = result.data ?? [];
  if (brokers.length === 0) return null;
  const there = brokers.filter((b) => b.state === 'found' || b.state === 'unrecognised');
  const absent = brokers.filter((b) => b.state === 'absent');
  return (
    <section class="card" aria-label="Brokers on this machine">
      <div class="card-head">
        <h2>Brokers on this machine</h2>
        <span class="muted">looked for on loopback every half minute</span>
      </div>
      {there.length > 0 ? (
        <table class="plain stacking">
          <thead>
            <tr>
              <th scope="col">State</th>
              <th scope="col">Broker</th>
              <th scope="col">Address</th>
            </tr>
          </thead>
          <tbody>
            {there.map((b) => (
              <tr key={`${b.kind} ${b.address}`}>
                <td>
                  {b.state === 'unrecognised' ? (
                    <Badge tone="warn">something else answers there</Badge>
                  ) : b.supported ? (
                    <Badge tone="ok">monitored</Badge>
                  ) : (
                    <Badge tone="quiet">found, not supported yet</Badge>
                  )}
                </td>
                <td>{b.kind}</td>
                <td>{b.address}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
      {absent.length > 0 ? (
        <div class="note muted">Nothing at the usual place of: {absent.map((b) => `${b.kind} (${b.address})`).join(', ')}</div>
      ) : null}
    </section>
  );
}

function PoolView({ pool }: { pool: Pool }) {
  const [open, setOpen] = useState(true);
  const [all, setAll] = useState(false);
  const shown = all ? pool.shown : pool.shown.slice(0, targetsMax);
  const fine = pool.up === pool.total;
  return (
    <section class="card" aria-label={`Scrape pool ${pool.name}`}>
      <div class="card-head">
        <button type="button" class="disclosure" aria-expanded={open} onClick={() => setOpen(!open)}>
          <Icon name="chevron" />
          <h2>{pool.name}</h2>
        </button>
        <Badge tone={fine ? 'ok' : pool.up === 0 ? 'bad' : 'warn'} icon={fine ? 'ok' : 'warn'}>
          {pool.up} of {pool.total} up
        </Badge>
      </div>
      {open ? (
        <table class="plain stacking target-table">
          <thead>
            <tr>
              <th scope="col">Health</th>
              <th scope="col">Endpoint</th>
              <th scope="col">Labels</th>
              <th scope="col" class="num">
                Last scrape
              </th>
              <th scope="col" class="num">
                Took
              </th>
            </tr>
          </thead>
          {shown.map((t, i) => (
            <TargetView key={`${t.scrapeUrl}${i}`} target={t} />
          ))}
        </table>
      ) : null}
      {open && shown.length < pool.shown.length ? (
        <div class="note">
          <button type="button" class="button small" onClick={() => setAll(true)}>
            {pool.shown.length - shown.length} more targets
          </button>
        </div>
      ) : null}
    </section>
  );
}

function TargetView({ target: t }: { target: Target }) {
  // Only what is surely a web address becomes a link.
  const url = /^https?:\/\//.test(t.scrapeUrl) ? t.scrapeUrl : undefined;
  return (
    <tbody>
      <tr>
        <td>
          <Badge
            tone={t.health === 'up' ? 'ok' : t.health === 'down' ? 'bad' : 'quiet'}
            icon={t.health === 'up' ? 'ok' : t.health === 'down' ? 'fire' : 'pending'}
          >
            {t.health}
          </Badge>
        </td>
        <td class="endpoint">
          {url ? (
            <a href={url} target="_blank" rel="noreferrer noopener">
              {t.scrapeUrl}
            </a>
          ) : (
            t.scrapeUrl
          )}
        </td>
        <td>
          <Labels labels={t.labels} />
        </td>
        <td class="num">
          <Ago ms={rfc3339(t.lastScrape)} />
          {t.scrapeInterval ? <div class="muted small-text">every {t.scrapeInterval}</div> : null}
        </td>
        <td class="num">{rfc3339(t.lastScrape) === undefined ? '—' : human(t.lastScrapeDuration)}</td>
      </tr>
      {t.lastError ? (
        <tr class="error-row">
          <td colSpan={5}>
            <div class="target-error">
              <Icon name="fire" />
              <pre>{t.lastError}</pre>
            </div>
          </td>
        </tr>
      ) : null}
    </tbody>
  );
}
