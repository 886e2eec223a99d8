/** One panel: editor, table or graph, what the server said about it. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { type Answer, call } from '../../api/client';
import { now } from '../../api/clock';
import { useResource } from '../../api/resource';
import type { QueryData } from '../../api/types';
import { human } from '../../format/duration';
import { count } from '../../format/number';
import { Editor, remember } from '../../parts/editor';
import { Icon } from '../../parts/icons';
import { CopyButton, Empty, ErrorBox, Skeleton } from '../../parts/states';
import { GraphControls, TableControls } from './controls';
import { ResultGraph } from './graph';
import { ResultTable } from './table';
import { type PanelState, stepOf } from './url';

interface Loaded extends Answer<QueryData> {
  /** Round trip in ms. */
  took: number;
  /** Grid of the answer in seconds; all zero for an instant query. */
  start: number;
  end: number;
  step: number;
  expr: string;
}

async function load(panel: PanelState, signal: AbortSignal): Promise<Loaded> {
  const began = performance.now();
  const query = panel.expr;
  if (panel.tab === 'table') {
    // Without a time the server takes its own now.
    const time = panel.moment === null ? undefined : panel.moment / 1000;
    const answer = await call<QueryData>('query', { query, time, stats: 'true' }, { signal, post: true });
    return { ...answer, took: performance.now() - began, start: 0, end: 0, step: 0, expr: query };
  }
  const stepMs = stepOf(panel.range, panel.resolution);
  const step = stepMs / 1000;
  // A moving end is put on a multiple of the step: refreshed graphs then do not shiver.
  const end = panel.end === null ? (Math.floor(now() / stepMs) * stepMs) / 1000 : panel.end / 1000;
  const start = Number((end - panel.range / 1000).toFixed(3));
  const answer = await call<QueryData>('query_range', { query, start, end, step, stats: 'true' }, { signal, post: true });
  return { ...answer, took: performance.now() - began, start, end, step, expr: query };
}

interface Props {
  number: number;
  panel: PanelState;
  names: string[] | undefined;
  onChange: (part: Partial<PanelState>, replace?: boolean) => void;
  onRemove: (() => void) | undefined;
}

export function ExplorePanel({ number, panel, names, onChange, onRemove }: Props) {
  const [draft, setDraft] = useState(panel.expr);
  // Back, forward and links change the expression from outside.
  useEffect(() => setDraft(panel.expr), [panel.expr]);

  const { expr, tab, range, end, moment, resolution } = panel;
  const key = expr.trim() === '' ? null : JSON.stringify(tab === 'table' ? [tab, expr, moment] : [tab, expr, range, end, resolution]);
  const frozen = tab === 'table' ? moment !== null : end !== null;
  const result = useResource(key, (signal) => load(panel, signal), frozen ? Number.POSITIVE_INFINITY : 0);
  const loaded = result.data;

  const run = (text: string) => {
    remember(text);
    if (text === expr) result.reload();
    else onChange({ expr: text });
  };

  // Zooming out goes back the way zooming in came, then widens.
  const zooms = useRef<{ range: number; end: number | null }[]>([]);
  const zoom = (startMs: number, endMs: number) => {
    if (endMs - startMs < 1000) return;
    zooms.current.push({ range, end });
    onChange({ range: Math.round((endMs - startMs) / 1000) * 1000 || 1000, end: Math.round(endMs / 1000) * 1000 });
  };
  const zoomOut = () => {
    const before = zooms.current.pop();
    if (before) onChange(before);
    else onChange({ range: range * 2, end: end === null ? null : Math.min(end + range / 2, now()) });
  };

  const fits = loaded && (tab === 'table') === (loaded.step === 0);
  const busy = result.loading && (result.stale || !loaded);
  return (
    <section class="card panel" aria-label={`Panel ${number}`}>
      <div class="panel-query">
        <Editor
          label={`Expression of panel ${number}`}
          value={draft}
          names={names}
          autoFocus={number === 1 && expr === ''}
          onInput={setDraft}
          onRun={run}
        />
        <div class="panel-actions">
          {busy ? (
            <button type="button" class="button" onClick={result.cancel}>
              <Icon name="close" />
              Cancel
            </button>
          ) : (
            <button type="button" class="button primary" onClick={() => run(draft)} title="Enter">
              Run
            </button>
          )}
          {onRemove ? (
            <button
              type="button"
              class="button icon-only plain"
              aria-label={`Remove panel ${number}`}
              title="Remove panel"
              onClick={onRemove}
            >
              <Icon name="close" />
            </button>
          ) : null}
        </div>
      </div>
      <div class="panel-controls">
        <span class="segments" role="group" aria-label="View">
          {(['table', 'graph'] as const).map((t) => (
            <button key={t} type="button" aria-pressed={t === tab} onClick={() => onChange({ tab: t })}>
              {t === 'table' ? 'Table' : 'Graph'}
            </button>
          ))}
        </span>
        {tab === 'table' ? <TableControls panel={panel} onChange={onChange} /> : <GraphControls panel={panel} onChange={onChange} />}
      </div>
      {result.error ? (
        <div class="panel-error">
          <ErrorBox error={result.error} context={expr} />
        </div>
      ) : null}
      {fits && loaded ? (
        <div class={result.stale ? 'stale' : undefined} aria-busy={result.loading}>
          {tab === 'table' ? (
            <ResultTable data={loaded.data} />
          ) : (
            <ResultGraph
              data={loaded.data}
              start={loaded.start}
              end={loaded.end}
              step={loaded.step}
              stacked={panel.stacked}
              fromZero={panel.fromZero}
              label={`Graph of ${loaded.expr}`}
              onZoom={zoom}
              onZoomOut={zoomOut}
            />
          )}
          <Notes warnings={loaded.warnings} infos={loaded.infos} />
          <StatsLine loaded={loaded} />
        </div>
      ) : result.error ? null : key !== null && result.loading ? (
        <Skeleton rows={tab === 'table' ? 4 : 8} />
      ) : key !== null && !result.loading ? (
        <div class="note">Cancelled. Run the expression again to see its result.</div>
      ) : (
        <Empty title="Ask a question">
          <p class="muted">
            Type an expression and press Enter. Shift+Enter breaks the line, Ctrl+↑ brings back earlier expressions, Escape leaves the
            editor.
          </p>
          <p class="starters">
            {starters.map((s) => (
              <button key={s} type="button" class="button small mono" onClick={() => run(s)}>
                {s}
              </button>
            ))}
          </p>
        </Empty>
      )}
    </section>
  );
}

const starters = ['up', 'sum by (system, queue) (queue_messages_ready)', 'topk(10, queue_lag_seconds)'];

function Notes({ warnings, infos }: { warnings: string[]; infos: string[] }) {
  if (warnings.length + infos.length === 0) return null;
  return (
    <ul class="notes">
      {warnings.map((w) => (
        <li key={w} class="warning">
          <Icon name="warn" />
          <span>Warning: {w}</span>
        </li>
      ))}
      {infos.map((t) => (
        <li key={t} class="info">
          <Icon name="dot" />
          <span>Info: {t}</span>
        </li>
      ))}
    </ul>
  );
}

function StatsLine({ loaded }: { loaded: Loaded }) {
  const { data, took, step } = loaded;
  const series = data.resultType === 'vector' || data.resultType === 'matrix' ? data.result.length : 1;
  const server = data.stats?.timings?.execTotalTime ?? data.stats?.timings?.evalTotalTime;
  const samples = data.stats?.samples?.totalQueryableSamples;
  const parts = [
    `${count(series)} series`,
    step > 0 ? `step ${human(step)}` : undefined,
    samples === undefined ? undefined : `${count(samples)} samples read`,
    server === undefined ? undefined : `${human(server)} in the server`,
    `${human(took / 1000)} round trip`,
  ].filter((p) => p !== undefined);
  return (
    <div class="stats">
      <span>{parts.join(' · ')}</span>
      <CopyButton text={window.location.href} label="Copy link" />
    </div>
  );
}
