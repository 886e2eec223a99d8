/** Tells tests and screenshot tools when a page has its data: `document.body.dataset.ready` is "true" then, "false" before. */

let open = 0;
let timer: ReturnType<typeof setTimeout> | undefined;
let shown = false;

/** A page was entered: its data is not there yet. */
export function entering(): void {
  shown = false;
  document.body.dataset['ready'] = 'false';
}

export function begin(): void {
  open += 1;
  clearTimeout(timer);
}

/** Every `begin` has one `end`. The page counts as settled when nothing was opened for two frames after the last. */
export function end(): void {
  open -= 1;
  if (open > 0 || shown) return;
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (open > 0) return;
    shown = true;
    document.body.dataset['ready'] = 'true';
  }, 40);
}
