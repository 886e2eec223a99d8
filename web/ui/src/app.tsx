/** The frame around every page, and which page a path shows. */
import { Component, type ComponentChildren, type ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { OverviewPage } from './pages/overview/page';
import { Banner } from './parts/banner';
import { ErrorBox, Skeleton } from './parts/states';
import { TopBar } from './parts/topbar';
import { go, href, location } from './router';
import { begin, end, entering } from './settled';

type Page = ComponentType;
interface Entry {
  title: string;
  load: () => Promise<Page>;
}

// The overview is part of the first load; everything that needs the chart library is not.
const pages: Record<string, Entry> = {
  '/': { title: 'Overview', load: async () => OverviewPage },
  '/queue': { title: 'Queue', load: async () => (await import('./pages/queue/page')).QueuePage },
  '/explore': { title: 'Explore', load: async () => (await import('./pages/explore/page')).ExplorePage },
  '/alerts': { title: 'Alerts', load: async () => (await import('./pages/alerts/page')).AlertsPage },
  '/targets': { title: 'Targets', load: async () => (await import('./pages/targets/page')).TargetsPage },
  '/status': { title: 'Status', load: async () => (await import('./pages/status/page')).StatusPage },
};
// Links made for Prometheus' own pages arrive here.
const aliases: Record<string, string> = { '/graph': '/explore', '/query': '/explore', '/overview': '/' };

export function App() {
  const { path, params } = location.value;
  const alias = aliases[path];
  useEffect(() => {
    if (alias) go(href(alias, params), { replace: true });
  }, [alias]);
  return (
    <>
      <a class="skip" href={`${href(path, params)}#main`} data-external onClick={focusMain}>
        Skip to content
      </a>
      <TopBar path={alias ?? path} />
      <Banner />
      <main id="main" tabIndex={-1}>
        {alias ? null : <Outlet key={path} path={path} />}
      </main>
    </>
  );
}

function focusMain(event: Event): void {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

function Outlet({ path }: { path: string }) {
  const entry = pages[path];
  const [page, setPage] = useState<{ of: Page } | undefined>(path === '/' ? { of: OverviewPage } : undefined);
  const [error, setError] = useState<Error | undefined>();
  useEffect(() => {
    entering();
    document.title = `${entry?.title ?? 'Not found'} · Nilometer`;
    begin();
    entry
      ?.load()
      .then(
        (of) => setPage({ of }),
        (e: unknown) => setError(e instanceof Error ? e : new Error(String(e))),
      )
      .finally(end);
    if (!entry) end();
  }, []);
  if (!entry) return <NotFound path={path} />;
  if (error) {
    return (
      <div class="page">
        <ErrorBox
          error={new Error(`This page could not be loaded. The server may have been upgraded: reload the page. (${error.message})`)}
        />
      </div>
    );
  }
  if (!page) return <Skeleton rows={6} />;
  const Page = page.of;
  return (
    <Guard>
      <Page />
    </Guard>
  );
}

function NotFound({ path }: { path: string }) {
  return (
    <div class="page">
      <div class="empty">
        <h1>No such page</h1>
        <p>
          Nothing is shown at <code>{path}</code>.
        </p>
        <p>
          <a class="button" href={href('/')}>
            Go to the overview
          </a>
        </p>
      </div>
    </div>
  );
}

/** A fault in one page must leave the frame usable. */
class Guard extends Component<{ children: ComponentChildren }, { error?: Error }> {
  override state: { error?: Error } = {};
  override componentDidCatch(error: unknown) {
    this.setState({ error: error instanceof Error ? error : new Error(String(error)) });
    console.error(error);
  }
  override render() {
    if (!this.state.error) return this.props.children;
    return (
      <div class="page">
        <ErrorBox error={new Error(`This page failed, please report it: ${this.state.error.message}`)} />
      </div>
    );
  }
}
