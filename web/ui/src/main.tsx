import './styles/base.css';
import './styles/parts.css';
import './styles/overview.css';
import { render } from 'preact';
import { startRefresh } from './api/resource';
import { App } from './app';
import { startRouter } from './router';
import { startTheme } from './settings';

startTheme();
startRouter();
startRefresh();
render(<App />, document.getElementById('app') as HTMLElement);
