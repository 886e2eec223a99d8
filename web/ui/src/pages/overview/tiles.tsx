import type { Alert } from '../../api/types';
import { count, exact } from '../../format/number';
import { Icon } from '../../parts/icons';
import { href, setParams } from '../../router';
import type { Overview, Totals } from './model';

const tileSystems = 4;

/** The four questions of a morning: is anybody late, how much waits, is a broker away, does something fire. */
export function Tiles({
  totals,
  overview,
  alerts,
  alertsError,
  only,
}: {
  totals: Totals;
  overview: Overview;
  alerts: Alert[] | undefined;
  alertsError: Error | undefined;
  only: string | null;
}) {
  const firing = alerts?.filter((a) => a.state === 'firing').length;
  const pending = alerts?.filter((a) => a.state === 'pending').length ?? 0;
  const down = overview.nodesDown.length;
  const rest = totals.systems.slice(tileSystems);
  return (
    <div class="tiles">
      <button
        type="button"
        class={totals.over > 0 ? 'tile bad' : 'tile ok'}
        aria-pressed={only === 'over'}
        onClick={() => setParams({ only: only === 'over' ? undefined : 'over' })}
      >
        <span class="tile-name">Readers over objective</span>
        <span class="tile-value">
          <Icon name={totals.over > 0 ? 'warn' : 'ok'} />
          {totals.over}
          <small>of {totals.readers}</small>
        </span>
        <span class="tile-note">{totals.over > 0 ? 'lag longer than allowed' : 'every lag within its objective'}</span>
      </button>
      <div class="tile wide">
        <span class="tile-name">Backlog</span>
        <span class="tile-value" title={`${exact(totals.ready)} messages`}>
          {count(totals.ready)}
          <small>messages ready</small>
        </span>
        <Shares totals={totals} />
        <span class="tile-note shares-legend">
          {totals.systems.slice(0, tileSystems).map((s, i) => (
            <span key={s.system} title={`${exact(s.ready)} messages, ${s.readers} readers`}>
              <i class={`swatch s${i}`} />
              {s.system || 'no system'} {count(s.ready)}
            </span>
          ))}
          {rest.length > 0 ? <span>+ {rest.length} more</span> : null}
        </span>
      </div>
      <a class={down > 0 ? 'tile bad' : 'tile ok'} href={href('/explore', { 'g0.expr': 'queue_up == 0', 'g0.tab': 'table' })}>
        <span class="tile-name">Broker nodes down</span>
        <span class="tile-value">
          <Icon name={down > 0 ? 'warn' : 'ok'} />
          {down}
          <small>of {overview.nodes}</small>
        </span>
        <span class="tile-note">
          {down > 0
            ? overview.nodesDown
                .slice(0, 2)
                .map((n) => `${n.labels['system'] ?? ''} ${n.labels['node'] ?? n.labels['instance'] ?? ''}`.trim())
                .join(', ') + (down > 2 ? ' …' : '')
            : overview.nodes === 0
              ? 'no node reports queue_up'
              : 'all answer'}
        </span>
      </a>
      <a
        class={firing ? 'tile bad' : pending ? 'tile warn' : 'tile ok'}
        href={href('/alerts', { state: firing ? 'firing' : pending ? 'pending' : undefined })}
      >
        <span class="tile-name">Alerts firing</span>
        <span class="tile-value">
          <Icon name={firing ? 'fire' : pending ? 'pending' : 'ok'} />
          {firing ?? '—'}
          {pending > 0 ? <small>{pending} pending</small> : null}
        </span>
        <span class="tile-note">
          {firing === undefined
            ? alertsError
              ? 'alerts could not be read'
              : 'loading'
            : firing > 0
              ? names(alerts ?? [])
              : 'nothing fires'}
        </span>
      </a>
    </div>
  );
}

function names(alerts: readonly Alert[]): string {
  const seen = new Map<string, number>();
  for (const a of alerts)
    if (a.state === 'firing') seen.set(a.labels['alertname'] ?? 'alert', (seen.get(a.labels['alertname'] ?? 'alert') ?? 0) + 1);
  const sorted = [...seen].sort((a, b) => b[1] - a[1]);
  return (
    sorted
      .slice(0, 2)
      .map(([n, c]) => (c > 1 ? `${n} ×${c}` : n))
      .join(', ') + (sorted.length > 2 ? ' …' : '')
  );
}

/** One bar split by system. */
function Shares({ totals }: { totals: Totals }) {
  const width = 400;
  let x = 0;
  const parts = totals.systems.slice(0, tileSystems).map((s, i) => {
    const w = totals.ready > 0 ? (s.ready / totals.ready) * width : 0;
    const part = { x, w, i };
    x += w;
    return part;
  });
  return (
    <svg class="shares" viewBox={`0 0 ${width} 6`} preserveAspectRatio="none" aria-hidden="true">
      <rect class="shares-ground" width={width} height="6" />
      {parts.map((p) => (p.w > 0 ? <rect key={p.i} class={`share s${p.i}`} x={p.x} width={Math.max(p.w - 1.5, 0.5)} height="6" /> : null))}
    </svg>
  );
}
