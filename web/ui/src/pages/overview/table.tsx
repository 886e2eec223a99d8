/** The list of readers: an ARIA table whose rows exist only near the window, so that thousands cost what dozens do. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { human } from '../../format/duration';
import { count, exact, rate, UNKNOWN } from '../../format/number';
import { Icon, type IconName } from '../../parts/icons';
import { memo } from '../../parts/memo';
import { href, setParams } from '../../router';
import { formatSort, type LagState, type Row, type Section, type Sort, type SortColumn, sparkPath } from './model';
import { keyLabels } from './query';

export type TableLine = { row: Row; section?: undefined } | { section: Section; row?: undefined };

interface Column {
  id: SortColumn | 'spark';
  name: string;
  title: string;
  numeric?: boolean;
}
const columns: Column[] = [
  { id: 'system', name: 'System', title: 'Kind of broker' },
  { id: 'queue', name: 'Queue', title: 'Queue, topic, stream or list; below it the cluster and the virtual host' },
  { id: 'group', name: 'Group', title: 'Consumer group, where the system has groups' },
  { id: 'alerts', name: 'Alerts', title: 'Alerts firing or pending for this reader' },
  { id: 'ready', name: 'Ready', title: 'Messages waiting for this reader', numeric: true },
  { id: 'spark', name: 'Last hour', title: 'Ready over the last hour; each line has its own scale' },
  { id: 'in_flight', name: 'In flight', title: 'Delivered and not yet acknowledged', numeric: true },
  { id: 'in', name: 'In/s', title: 'Messages put in per second, 5 minute rate', numeric: true },
  { id: 'out', name: 'Out/s', title: 'Messages finished per second, 5 minute rate', numeric: true },
  { id: 'lag', name: 'Lag', title: 'Age of the oldest message this reader has not finished', numeric: true },
  { id: 'drain', name: 'Drains in', title: 'Ready ÷ (out − in); ∞ while the backlog grows', numeric: true },
  { id: 'consumers', name: 'Consumers', title: 'Readers attached', numeric: true },
  { id: 'dead', name: 'Dead', title: 'Messages parked for good', numeric: true },
];

const narrow = matchMedia('(max-width: 980px)');
const overscan = 8;

export function queueHref(row: Row): string {
  return href('/queue', Object.fromEntries(keyLabels.map((k) => [k, row.labels[k]])));
}

interface Props {
  lines: TableLine[];
  sort: Sort;
  sparks: Map<string, Float64Array> | undefined;
  /** Told, after scrolling has stopped, which rows are in view. */
  onInView: ((rows: Row[]) => void) | undefined;
}

export function QueueTable({ lines, sort, sparks, onInView }: Props) {
  const body = useRef<HTMLDivElement>(null);
  const [compactRows, setCompactRows] = useState(narrow.matches);
  const [span, setSpan] = useState({ first: 0, last: 40 });
  const heights = compactRows ? { row: 108, section: 40 } : { row: 46, section: 38 };

  useEffect(() => {
    const change = () => setCompactRows(narrow.matches);
    narrow.addEventListener('change', change);
    return () => narrow.removeEventListener('change', change);
  }, []);

  // Offsets of every line: sections are lower than rows.
  const tops = useMemo(() => {
    const out = new Float64Array(lines.length + 1);
    for (let i = 0; i < lines.length; i++) out[i + 1] = (out[i] as number) + (lines[i]?.row ? heights.row : heights.section);
    return out;
  }, [lines, heights.row, heights.section]);
  const total = tops[lines.length] as number;

  useLayoutEffect(() => {
    const measure = () => {
      if (!body.current) return;
      const top = -body.current.getBoundingClientRect().top;
      const first = Math.max(0, find(tops, top) - overscan);
      const last = Math.min(lines.length, find(tops, top + window.innerHeight) + 1 + overscan);
      setSpan((s) => (s.first === first && s.last === last ? s : { first, last }));
    };
    measure();
    window.addEventListener('scroll', measure, { passive: true });
    window.addEventListener('resize', measure);
    return () => {
      window.removeEventListener('scroll', measure);
      window.removeEventListener('resize', measure);
    };
  }, [tops, lines.length]);

  const visible = lines.slice(span.first, span.last);
  useEffect(() => {
    if (!onInView) return;
    const timer = setTimeout(() => onInView(visible.flatMap((l) => (l.row ? [l.row] : []))), 250);
    return () => clearTimeout(timer);
  }, [lines, span.first, span.last, onInView !== undefined]);

  return (
    <div
      class={compactRows ? 'qtable card compact' : 'qtable card'}
      role="table"
      aria-label="Queues"
      aria-rowcount={lines.length + 1}
      aria-colcount={columns.length}
    >
      <div class="qhead" role="rowgroup">
        <div class="qrow" role="row" aria-rowindex={1}>
          {columns.map((c) => (
            <HeadCell key={c.id} column={c} sort={sort} />
          ))}
        </div>
      </div>
      <div class="qbody" role="rowgroup" ref={body} style={{ height: `${total}px` }}>
        {visible.map((line, i) => {
          const index = span.first + i;
          const top = tops[index] as number;
          return line.row ? (
            <RowView key={line.row.key} row={line.row} top={top} index={index + 2} spark={sparks?.get(line.row.key)} />
          ) : (
            <SectionView key={`section ${line.section.name}`} section={line.section} top={top} index={index + 2} />
          );
        })}
      </div>
    </div>
  );
}

/** Index of the line that covers offset y. */
function find(tops: Float64Array, y: number): number {
  let low = 0;
  let high = Math.max(0, tops.length - 2);
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    if ((tops[mid] as number) <= y) low = mid;
    else high = mid - 1;
  }
  return low;
}

function HeadCell({ column, sort }: { column: Column; sort: Sort }) {
  const { id, name, title, numeric } = column;
  const kind = `qcell c-${id}${numeric ? ' num' : ''}`;
  if (id === 'spark') {
    return (
      <div role="columnheader" class={kind} title={title}>
        {name}
      </div>
    );
  }
  const active = sort.column === id;
  const next: Sort = { column: id, descending: active ? !sort.descending : numeric === true || id === 'alerts' };
  return (
    <div role="columnheader" class={kind} aria-sort={active ? (sort.descending ? 'descending' : 'ascending') : 'none'}>
      <button type="button" title={title} onClick={() => setParams({ sort: formatSort(next) })}>
        {name}
        {active ? <Icon name={sort.descending ? 'down' : 'up'} /> : null}
      </button>
    </div>
  );
}

function SectionView({ section, top, index }: { section: Section; top: number; index: number }) {
  return (
    <div class="qsection" role="row" aria-rowindex={index} style={{ transform: `translateY(${top}px)` }}>
      <div role="cell" aria-colspan={columns.length}>
        <strong>{section.name}</strong>
        <span class="muted">
          {section.rows.length} {section.rows.length === 1 ? 'reader' : 'readers'} · {count(section.ready)} ready
          {section.over > 0 ? ` · ${section.over} over objective` : ''}
          {section.firing > 0 ? ` · ${section.firing} firing` : ''}
        </span>
      </div>
    </div>
  );
}

const lagIcon: Record<LagState, IconName | undefined> = { over: 'warn', near: 'pending', ok: 'ok', none: undefined };
const lagWord: Record<LagState, string> = { over: 'over its objective', near: 'near its objective', ok: 'within its objective', none: '' };

const RowView = memo(function RowView({
  row,
  top,
  index,
  spark,
}: {
  row: Row;
  top: number;
  index: number;
  spark: Float64Array | undefined;
}) {
  const { labels } = row;
  const place = [labels.cluster, labels.vhost === '' ? '' : `vhost ${labels.vhost}`].filter(Boolean).join(' · ');
  const icon = lagIcon[row.lagState];
  return (
    <div class="qrow" role="row" aria-rowindex={index} style={{ transform: `translateY(${top}px)` }}>
      <div role="cell" class="qcell c-system">
        {labels.system || UNKNOWN}
      </div>
      <div role="cell" class="qcell c-queue">
        <a href={queueHref(row)} title={labels.queue}>
          {labels.queue || UNKNOWN}
        </a>
        <small title={place}>
          <span class="when-compact">
            {labels.system}
            {labels.group === '' ? '' : ` · ${labels.group}`}
            {place === '' ? '' : ' · '}
          </span>
          {place}
        </small>
      </div>
      <div role="cell" class="qcell c-group" title={labels.group}>
        {labels.group}
      </div>
      <div role="cell" class="qcell c-alerts">
        {row.firing > 0 ? (
          <span class="badge bad" title={row.alertNames.join('\n')}>
            <Icon name="fire" />
            {row.firing}
            <span class="sr"> firing</span>
          </span>
        ) : null}
        {row.pending > 0 ? (
          <span class="badge warn" title={row.alertNames.join('\n')}>
            <Icon name="pending" />
            {row.pending}
            <span class="sr"> pending</span>
          </span>
        ) : null}
      </div>
      <div role="cell" class="qcell num c-ready" title={exact(row.ready)} data-name="Ready">
        {count(row.ready)}
      </div>
      <div role="cell" class="qcell c-spark">
        <Spark points={spark} />
      </div>
      <div role="cell" class="qcell num c-in_flight" title={exact(row.inFlight)} data-name="In flight">
        {count(row.inFlight)}
      </div>
      <div role="cell" class="qcell num c-in" title={exact(row.inRate)} data-name="In/s">
        {rate(row.inRate)}
      </div>
      <div role="cell" class="qcell num c-out" title={exact(row.outRate)} data-name="Out/s">
        {rate(row.outRate)}
      </div>
      <div
        role="cell"
        class={`qcell num c-lag lag-${row.lagState}`}
        title={row.slo === undefined ? 'no objective known' : `${lagWord[row.lagState]} of ${human(row.slo)}`}
        data-name="Lag"
      >
        {icon && row.lagState !== 'ok' ? <Icon name={icon} /> : null}
        {human(row.lag)}
        {row.lagState === 'over' || row.lagState === 'near' ? <span class="sr"> {lagWord[row.lagState]}</span> : null}
      </div>
      <div
        role="cell"
        class="qcell num c-drain"
        title={row.drain === Number.POSITIVE_INFINITY ? 'does not drain: as much comes in as goes out, or more' : undefined}
        data-name="Drains in"
      >
        {human(row.drain)}
      </div>
      <div
        role="cell"
        class={row.consumers === 0 && (row.ready ?? 0) > 0 ? 'qcell num c-consumers none' : 'qcell num c-consumers'}
        title={row.consumers === 0 && (row.ready ?? 0) > 0 ? 'messages wait and nobody reads' : undefined}
        data-name="Consumers"
      >
        {row.consumers === 0 && (row.ready ?? 0) > 0 ? <Icon name="warn" /> : null}
        {count(row.consumers)}
      </div>
      <div role="cell" class={row.dead ? 'qcell num c-dead some' : 'qcell num c-dead'} title={exact(row.dead)} data-name="Dead">
        {count(row.dead)}
      </div>
    </div>
  );
});

const Spark = memo(function Spark({ points }: { points: Float64Array | undefined }) {
  const path = useMemo(() => (points ? sparkPath(points, 110, 26) : undefined), [points]);
  if (!path) return null;
  return (
    <svg class="spark" viewBox="0 0 110 26" preserveAspectRatio="none" aria-hidden="true" focusable="false">
      <path class="spark-area" d={path.area} />
      <path class="spark-line" d={path.line} />
    </svg>
  );
});
