/** Paths below the server's prefix; the URL is where page state lives. */
import { signal } from '@preact/signals';

/** External path prefix, without a trailing slash; written into index.html by the server. */
export const base: string = (() => {
  const content = document.querySelector('meta[name="nm-base"]')?.getAttribute('content') ?? '';
  return content.startsWith('%') ? '' : content.replace(/\/+$/, '');
})();

export interface Location {
  /** Path below the prefix, always with a leading slash. */
  readonly path: string;
  readonly params: URLSearchParams;
}

function read(): Location {
  const full = window.location.pathname;
  const below = full.startsWith(base) ? full.slice(base.length) : full;
  const path = below.replace(/\/+$/, '') || '/';
  return { path, params: new URLSearchParams(window.location.search) };
}

export const location = signal<Location>(read());

/** The URL of a page for links: `href('/queue', params)`. */
export function href(path: string, params?: URLSearchParams | Record<string, string | undefined>): string {
  const search = params instanceof URLSearchParams ? params : new URLSearchParams();
  if (params && !(params instanceof URLSearchParams)) {
    for (const [k, v] of Object.entries(params)) if (v !== undefined && v !== '') search.set(k, v);
  }
  const text = search.toString();
  return `${base}${path}${text === '' ? '' : `?${text}`}`;
}

/** Goes to a URL made by `href`. `replace` for changes that are not worth a step back (typing in a filter). */
export function go(url: string, options: { replace?: boolean } = {}): void {
  const here = window.location.pathname + window.location.search;
  if (url === here) return;
  const samePage = url.split('?')[0] === window.location.pathname;
  if (options.replace) history.replaceState(null, '', url);
  else history.pushState(null, '', url);
  location.value = read();
  if (!samePage) window.scrollTo(0, 0);
}

/** Changes some parameters of the present page; an empty or undefined value removes one. */
export function setParams(changes: Record<string, string | undefined>, options: { replace?: boolean } = { replace: true }): void {
  const params = new URLSearchParams(location.value.params);
  for (const [k, v] of Object.entries(changes)) {
    if (v === undefined || v === '') params.delete(k);
    else params.set(k, v);
  }
  go(href(location.value.path, params), options);
}

export function startRouter(): void {
  window.addEventListener('popstate', () => {
    location.value = read();
  });
  // One listener for every link: plain anchors stay plain anchors (copy, open in a new tab, middle click work).
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const anchor = event.target instanceof Element ? event.target.closest('a') : null;
    if (!anchor || anchor.target || anchor.hasAttribute('download') || anchor.dataset['external'] !== undefined) return;
    const url = new URL(anchor.href, document.baseURI);
    if (url.origin !== window.location.origin || !(url.pathname === base || url.pathname.startsWith(`${base}/`))) return;
    event.preventDefault();
    go(url.pathname + url.search);
  });
}
