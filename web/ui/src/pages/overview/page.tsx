/** The first page: every reader of every queue, worst first. Three requests: the table, its spark lines, the alerts. */
import { useMemo, useState } from 'preact/hooks';
import { call } from '../../api/client';
import { now } from '../../api/clock';
import { useResource } from '../../api/resource';
import type { Alert, QueryData } from '../../api/types';
import { Icon } from '../../parts/icons';
import { Empty, ErrorBox, Skeleton } from '../../parts/states';
import { href, location, setParams } from '../../router';
import {
  filterRows,
  formatSort,
  type Grouping,
  groupings,
  groupRows,
  parseOverview,
  parseSort,
  parseSparks,
  type Row,
  sortRows,
  totals,
  withAlerts,
} from './model';
import { overviewExpression, sparkExpression } from './query';
import { QueueTable, type TableLine } from './table';
import { Tiles } from './tiles';

const sparkSpan = 3600;
const sparkStep = 60;
/** Above this many rows, spark lines are asked for the rows in view only. */
const sparkAll = 400;

async function loadOverview(signal: AbortSignal) {
  const { data, warnings } = await call<QueryData>('query', { query: overviewExpression }, { signal, post: true });
  return { ...parseOverview(data.resultType === 'vector' ? data.result : []), warnings };
}

async function loadSparks(signal: AbortSignal, queues: readonly string[] | undefined) {
  const end = Math.floor(now() / 1000 / sparkStep) * sparkStep;
  const start = end - sparkSpan;
  const { data } = await call<QueryData>(
    'query_range',
    { query: sparkExpression(queues), start, end, step: sparkStep },
    { signal, post: true },
  );
  return parseSparks(data.resultType === 'matrix' ? data.result : [], start, end, sparkStep);
}

export function OverviewPage() {
  const { params } = location.value;
  const text = params.get('q') ?? '';
  const sort = parseSort(params.get('sort'));
  const group = groupings.find((g) => g === params.get('group'));
  const only = params.get('only');

  const overview = useResource('overview', loadOverview);
  const alerts = useResource('alerts', async (signal) => (await call<{ alerts: Alert[] }>('alerts', {}, { signal })).data.alerts);
  const rows = overview.data?.rows;
  const [inView, setInView] = useState<string[]>([]);
  const many = rows !== undefined && rows.length > sparkAll;
  const scope = many ? inView : undefined;
  const sparkKey =
    rows === undefined || rows.length === 0 || (scope && scope.length === 0) ? null : `sparks:${scope ? scope.join('\u0000') : '*'}`;
  const sparks = useResource(sparkKey, (signal) => loadSparks(signal, scope), sparkStep);

  const known = useMemo(() => (rows ? withAlerts(rows, alerts.data ?? []) : undefined), [rows, alerts.data]);
  const shown = useMemo(() => {
    if (!known) return [];
    const matching = filterRows(known, text).filter((r) =>
      only === 'over' ? r.lagState === 'over' : only === 'alerts' ? r.firing + r.pending > 0 : true,
    );
    return sortRows(matching, sort);
  }, [known, text, only, formatSort(sort)]);
  const lines = useMemo<TableLine[]>(() => {
    if (!group) return shown.map((row) => ({ row }));
    return groupRows(shown, group).flatMap((section): TableLine[] => [{ section }, ...section.rows.map((row) => ({ row }))]);
  }, [shown, group]);
  const sums = useMemo(() => (known ? totals(known) : undefined), [known]);

  if (!overview.data || !known || !sums) {
    return (
      <div class="page">
        <div class="page-head">
          <h1>Overview</h1>
        </div>
        {overview.error ? <ErrorBox error={overview.error} context={overviewExpression} /> : <Skeleton rows={10} />}
      </div>
    );
  }
  if (known.length === 0) return <NoQueues nodesDown={overview.data.nodesDown.length} />;

  return (
    <div class="page">
      <h1 class="sr">Overview</h1>
      <Tiles totals={sums} overview={overview.data} alerts={alerts.data} alertsError={alerts.error} only={only} />
      {overview.error ? <ErrorBox error={overview.error} context={overviewExpression} /> : null}
      <div class="toolbar">
        <label class="search">
          <span class="sr">Filter queues</span>
          <Icon name="search" />
          <input
            type="search"
            placeholder="Filter by queue, group, vhost …"
            value={text}
            onInput={(e) => setParams({ q: e.currentTarget.value })}
          />
        </label>
        <GroupSwitch group={group} />
        {only === 'over' || only === 'alerts' ? (
          <button type="button" class="button small" onClick={() => setParams({ only: undefined })}>
            <Icon name="close" />
            {only === 'over' ? 'Over objective only' : 'With alerts only'}
          </button>
        ) : null}
        <span class="toolbar-count muted" aria-live="polite">
          {shown.length === known.length ? `${known.length} readers` : `${shown.length} of ${known.length} readers`}
        </span>
      </div>
      {shown.length === 0 ? (
        <div class="card">
          <Empty title="No queue matches">
            <p>
              {known.length} readers are known, none passes the filter.{' '}
              <button type="button" class="button small" onClick={() => setParams({ q: undefined, only: undefined })}>
                Clear the filter
              </button>
            </p>
          </Empty>
        </div>
      ) : (
        <QueueTable
          lines={lines}
          sort={sort}
          sparks={sparks.data}
          onInView={many ? (list: Row[]) => setInView(uniqueQueues(list)) : undefined}
        />
      )}
    </div>
  );
}

const uniqueQueues = (rows: readonly Row[]): string[] => [...new Set(rows.map((r) => r.labels.queue))].sort();

function GroupSwitch({ group }: { group: Grouping | undefined }) {
  return (
    <span class="group-switch" role="group" aria-label="Group rows">
      <span class="field-name" aria-hidden="true">
        Group
      </span>
      <span class="segments">
        {([undefined, ...groupings] as const).map((g) => (
          <button key={g ?? 'none'} type="button" aria-pressed={g === group} onClick={() => setParams({ group: g })}>
            {g ?? 'none'}
          </button>
        ))}
      </span>
    </span>
  );
}

function NoQueues({ nodesDown }: { nodesDown: number }) {
  return (
    <div class="page">
      <Empty title="No queue found yet">
        {nodesDown > 0 ? (
          <p>
            {nodesDown} {nodesDown === 1 ? 'broker was' : 'brokers were'} asked and did not answer: see the error on the{' '}
            <a href={href('/targets')}>Targets</a> page.
          </p>
        ) : null}
        <p>
          Without configuration, Nilometer looks for brokers on this machine at their usual ports (Redis 6379, Disque 7711, RabbitMQ 15672
          and 15692, Kafka 9092, NATS 8222, beanstalkd 11300, NSQ 4151, ActiveMQ and Artemis 8161). A broker that starts later is found by
          itself. Those this version has a collector for become targets; the log lists all that were looked for.
        </p>
        <p>For a broker elsewhere, add a scrape job with a collector to the configuration file and reload:</p>
        <pre>{`scrape_configs:
  - job_name: shop-redis
    collector: redis
    static_configs:
      - targets: ['redis.example.internal:6379']`}</pre>
        <p>
          Whether the broker was reached, and the error if not, stands on the <a href={href('/targets')}>Targets</a> page. Metrics of your
          own exporters appear here as soon as they use the common names, <code>queue_messages_ready</code> first of all.
        </p>
        <p>
          <a class="button primary" href={href('/targets')}>
            Look at the targets
          </a>{' '}
          <a class="button" href={href('/explore', { 'g0.expr': 'up', 'g0.tab': 'table' })}>
            Explore what is stored
          </a>
        </p>
      </Empty>
    </div>
  );
}
