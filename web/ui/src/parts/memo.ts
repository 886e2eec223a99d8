/** Skips a render when no property changed; Preact's core has no such helper and its React layer is not needed otherwise. */
import { Component, type ComponentType, h } from 'preact';

export function memo<P extends object>(view: (props: P) => preact.ComponentChild): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const now = this.props as Record<string, unknown>;
      const then = next as Record<string, unknown>;
      const names = Object.keys(then);
      return names.length !== Object.keys(now).length || names.some((n) => now[n] !== then[n]);
    }
    override render() {
      return h(view as (props: P) => preact.VNode, this.props as P);
    }
  };
}
