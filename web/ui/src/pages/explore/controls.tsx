import { useEffect, useState } from 'preact/hooks';
import { now } from '../../api/clock';
import { format, parse } from '../../format/duration';
import { dateTime, parseDateTime, zoneName } from '../../format/time';
import { Icon } from '../../parts/icons';
import { zone } from '../../settings';
import { type Density, type PanelState, stepOf } from './url';

interface Props {
  panel: PanelState;
  onChange: (part: Partial<PanelState>, replace?: boolean) => void;
}

const ladder = [
  '10s',
  '1m',
  '5m',
  '15m',
  '30m',
  '1h',
  '2h',
  '6h',
  '12h',
  '1d',
  '2d',
  '7d',
  '14d',
  '28d',
  '56d',
  '112d',
  '182d',
  '365d',
].map((d) => parse(d) as number);

export function GraphControls({ panel, onChange }: Props) {
  const { range, end, resolution } = panel;
  const wider = ladder.find((r) => r > range);
  const narrower = [...ladder].reverse().find((r) => r < range);
  return (
    <>
      <span class="joined" role="group" aria-label="Range">
        <button
          type="button"
          class="button icon-only"
          aria-label="Shorter range"
          disabled={narrower === undefined}
          onClick={() => narrower && onChange({ range: narrower })}
        >
          <Icon name="minus" />
        </button>
        <TextField
          label="Range"
          width="range"
          text={format(range)}
          read={(t) => (parse(t) ? parse(t) : undefined)}
          problem="a duration such as 1h30m"
          onCommit={(v) => onChange({ range: v })}
        />
        <button
          type="button"
          class="button icon-only"
          aria-label="Longer range"
          disabled={wider === undefined}
          onClick={() => wider && onChange({ range: wider })}
        >
          <Icon name="plus" />
        </button>
      </span>
      <MomentField label="End time" placeholder="End: now" value={end} step={range / 2} onCommit={(v) => onChange({ end: v })} />
      <label class="field">
        <span class="sr">Resolution</span>
        <select
          value={resolution.type === 'auto' ? resolution.density : 'fixed'}
          onChange={(e) => {
            const v = e.currentTarget.value;
            onChange({
              resolution: v === 'fixed' ? { type: 'fixed', step: stepOf(range, resolution) } : { type: 'auto', density: v as Density },
            });
          }}
        >
          <option value="low">Low resolution</option>
          <option value="medium">Medium resolution</option>
          <option value="high">High resolution</option>
          <option value="fixed">Fixed step</option>
        </select>
      </label>
      {resolution.type === 'auto' ? null : (
        <TextField
          label="Step"
          width="step"
          text={format(resolution.step)}
          read={(t) => parse(t) || undefined}
          problem="a duration such as 30s"
          onCommit={(step) => onChange({ resolution: { type: 'fixed', step } })}
        />
      )}
      <span class="grow" />
      <label class="check">
        <input type="checkbox" checked={panel.stacked} onChange={(e) => onChange({ stacked: e.currentTarget.checked }, true)} />
        Stacked
      </label>
      <label class="check">
        <input type="checkbox" checked={panel.fromZero} onChange={(e) => onChange({ fromZero: e.currentTarget.checked }, true)} />Y axis
        from 0
      </label>
    </>
  );
}

export function TableControls({ panel, onChange }: Props) {
  return (
    <MomentField
      label="Evaluation time"
      placeholder="At: now"
      value={panel.moment}
      step={panel.range / 2}
      onCommit={(v) => onChange({ moment: v })}
    />
  );
}

/** A moment or now; the arrows step by half the range. */
function MomentField({
  label,
  placeholder,
  value,
  step,
  onCommit,
}: {
  label: string;
  placeholder: string;
  value: number | null;
  step: number;
  onCommit: (v: number | null) => void;
}) {
  const z = zone.value;
  const second = (ms: number) => Math.floor(ms / 1000) * 1000;
  return (
    <span class="joined" role="group" aria-label={label}>
      <button
        type="button"
        class="button icon-only"
        aria-label={`${label}: earlier`}
        onClick={() => onCommit(second((value ?? now()) - step))}
      >
        <Icon name="chevron" class="flip" />
      </button>
      <TextField
        label={`${label} (${zoneName(value ?? now(), z)})`}
        width="moment"
        placeholder={placeholder}
        text={value === null ? '' : dateTime(value, z)}
        read={(t) => (t.trim() === '' || t.trim() === 'now' ? null : parseDateTime(t, z))}
        problem="a time such as 2026-01-31 18:30:00"
        onCommit={onCommit}
      />
      <button
        type="button"
        class="button icon-only"
        aria-label={`${label}: later`}
        disabled={value === null}
        onClick={() => {
          const next = second((value ?? 0) + step);
          onCommit(next >= now() ? null : next);
        }}
      >
        <Icon name="chevron" />
      </button>
    </span>
  );
}

/** Commits on Enter and on leaving; Escape takes the change back. What cannot be read is marked and not committed. */
function TextField<T>({
  label,
  width,
  text,
  read,
  problem,
  placeholder,
  onCommit,
}: {
  label: string;
  width: string;
  text: string;
  read: (text: string) => T | undefined;
  problem: string;
  placeholder?: string;
  onCommit: (value: T) => void;
}) {
  const [draft, setDraft] = useState(text);
  useEffect(() => setDraft(text), [text]);
  const value = read(draft);
  const wrong = value === undefined;
  const commit = () => {
    if (draft === text) return;
    if (value === undefined) return;
    onCommit(value);
  };
  return (
    <input
      type="text"
      class={`w-${width}`}
      aria-label={label}
      title={wrong ? `Not ${problem}` : label}
      aria-invalid={wrong}
      placeholder={placeholder}
      value={draft}
      spellcheck={false}
      onInput={(e) => setDraft(e.currentTarget.value)}
      onBlur={commit}
      onKeyDown={(e) => {
        if (e.key === 'Enter') commit();
        if (e.key === 'Escape') setDraft(text);
      }}
    />
  );
}
