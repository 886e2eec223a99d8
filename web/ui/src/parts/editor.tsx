/**
 * The expression editor. A text area today; the properties are what a code editor will be given in its place.
 * Enter runs, Shift+Enter breaks the line, Ctrl+Up and Ctrl+Down walk through earlier expressions.
 */
import { useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { type Suggestion, suggest, wordAt } from '../promql/complete';

export interface EditorProps {
  value: string;
  label: string;
  names: readonly string[] | undefined;
  autoFocus?: boolean;
  onInput: (value: string) => void;
  onRun: (value: string) => void;
}

const historyKey = 'nilometer.history';
const historyMax = 100;

function readHistory(): string[] {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(historyKey) ?? '[]');
    return Array.isArray(list) ? list.filter((s): s is string => typeof s === 'string').slice(0, historyMax) : [];
  } catch {
    return [];
  }
}

/** Remembers an expression that ran, newest first. */
export function remember(expr: string): void {
  if (expr.trim() === '') return;
  const list = [expr, ...readHistory().filter((e) => e !== expr)].slice(0, historyMax);
  try {
    localStorage.setItem(historyKey, JSON.stringify(list));
  } catch {
    // Full or forbidden: there is no history then.
  }
}

export function Editor({ value, label, names, autoFocus, onInput, onRun }: EditorProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  const list = useId();
  const [hints, setHints] = useState<Suggestion[]>([]);
  const [chosen, setChosen] = useState(-1);
  const walk = useRef({ at: -1, draft: '' });

  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = 'auto';
    element.style.height = `${Math.min(element.scrollHeight + 2, 320)}px`;
  }, [value]);
  useLayoutEffect(() => {
    // Not where it would raise an on-screen keyboard.
    if (autoFocus && !matchMedia('(pointer: coarse)').matches) area.current?.focus({ preventScroll: true });
  }, []);

  const close = () => {
    setHints([]);
    setChosen(-1);
  };
  const offer = (element: HTMLTextAreaElement) => {
    const spot = element.selectionStart === element.selectionEnd ? wordAt(element.value, element.selectionStart) : undefined;
    setHints(spot && names ? suggest(spot.word, names) : []);
    setChosen(-1);
  };
  const accept = (hint: Suggestion) => {
    const element = area.current;
    if (!element) return;
    const spot = wordAt(element.value, element.selectionStart);
    if (!spot) return;
    const text = hint.kind === 'function' ? `${hint.text}(` : hint.text;
    element.setRangeText(text, spot.from, element.selectionStart, 'end');
    onInput(element.value);
    close();
    element.focus();
  };
  const fromHistory = (direction: 1 | -1) => {
    const past = readHistory();
    const w = walk.current;
    if (w.at === -1) w.draft = value;
    const next = Math.max(-1, Math.min(past.length - 1, w.at + direction));
    w.at = next;
    onInput(next === -1 ? w.draft : (past[next] ?? ''));
    close();
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    const open = hints.length > 0;
    if (event.key === 'ArrowUp' || event.key === 'ArrowDown') {
      const down = event.key === 'ArrowDown';
      if (event.ctrlKey) {
        event.preventDefault();
        fromHistory(down ? -1 : 1);
      } else if (open) {
        event.preventDefault();
        setChosen((c) => (c + (down ? 1 : -1) + hints.length + (c === -1 && !down ? 1 : 0)) % hints.length);
      }
    } else if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      const hint = hints[chosen];
      if (hint) accept(hint);
      else {
        close();
        walk.current.at = -1;
        onRun(value);
      }
    } else if (event.key === 'Tab' && open && !event.shiftKey) {
      event.preventDefault();
      accept(hints[Math.max(0, chosen)] as Suggestion);
    } else if (event.key === 'Escape') {
      if (open) {
        event.preventDefault();
        close();
      } else area.current?.blur();
    }
  };

  const open = hints.length > 0;
  return (
    <div class="editor">
      <textarea
        ref={area}
        class="editor-area"
        rows={1}
        spellcheck={false}
        autocapitalize="off"
        autocomplete="off"
        aria-label={label}
        aria-autocomplete="list"
        aria-controls={open ? list : undefined}
        aria-activedescendant={chosen >= 0 ? `${list}-${chosen}` : undefined}
        placeholder="Expression, for example sum by (queue) (queue_messages_ready)"
        value={value}
        onInput={(e) => {
          onInput(e.currentTarget.value);
          offer(e.currentTarget);
        }}
        onKeyDown={onKeyDown}
        onBlur={close}
        onClick={close}
      />
      {open ? (
        <div class="hints" role="listbox" id={list} aria-label="Suggestions">
          {hints.map((h, i) => (
            // The keyboard is handled by the text area, which keeps the focus.
            <div
              key={`${h.kind}${h.text}`}
              id={`${list}-${i}`}
              role="option"
              tabIndex={-1}
              aria-selected={i === chosen}
              class={i === chosen ? 'hint chosen' : 'hint'}
              onMouseDown={(e) => {
                e.preventDefault();
                accept(h);
              }}
            >
              <span class="hint-text">{h.text}</span>
              <span class="hint-kind">{h.kind}</span>
            </div>
          ))}
        </div>
      ) : null}
    </div>
  );
}
