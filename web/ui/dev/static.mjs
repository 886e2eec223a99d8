// Serves dist/ the way the Nilometer server does: placeholder replaced, CSP and cache headers, compressed siblings,
// index.html for unknown UI paths; everything below /api and /-/ goes to an upstream. Also under a path prefix.
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import http from 'node:http';
import { extname, join, normalize } from 'node:path';

const types = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.html': 'text/html; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
};
export const csp = "default-src 'self'";

const escapeAttribute = (s) => s.replace(/&/g, '&amp;').replace(/"/g, '&quot;').replace(/</g, '&lt;');

export function uiServer({ dist, prefix = '', upstream }) {
  const page = () => readFileSync(join(dist, 'index.html'), 'utf8').replaceAll('%NM_BASE%', escapeAttribute(prefix));
  return http.createServer((req, res) => {
    const url = new URL(req.url, 'http://localhost');
    if (prefix !== '' && url.pathname !== prefix && !url.pathname.startsWith(`${prefix}/`)) {
      res.writeHead(url.pathname === '/' ? 302 : 404, url.pathname === '/' ? { location: `${prefix}/` } : {});
      return res.end();
    }
    const path = url.pathname.slice(prefix.length) || '/';
    if (/^\/(api|-)\//.test(path)) return proxy(upstream, path + url.search, req, res);
    if (path.startsWith('/assets/') || path === '/third-party-licenses.txt') {
      const file = normalize(join(dist, decodeURIComponent(path)));
      if (!file.startsWith(dist) || !existsSync(file) || !statSync(file).isFile()) {
        res.writeHead(404);
        return res.end();
      }
      const headers = {
        'content-type': types[extname(file)] ?? 'application/octet-stream',
        'cache-control': path.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
        'x-content-type-options': 'nosniff',
        vary: 'accept-encoding',
      };
      const accept = String(req.headers['accept-encoding'] ?? '');
      const [encoding, extension] =
        /\bbr\b/.test(accept) && existsSync(`${file}.br`)
          ? ['br', '.br']
          : /\bgzip\b/.test(accept) && existsSync(`${file}.gz`)
            ? ['gzip', '.gz']
            : ['', ''];
      if (encoding) headers['content-encoding'] = encoding;
      res.writeHead(200, headers);
      return createReadStream(file + extension).pipe(res);
    }
    res.writeHead(200, {
      'content-type': types['.html'],
      'content-security-policy': csp,
      'cache-control': 'no-cache',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'same-origin',
    });
    res.end(page());
  });
}

function proxy(upstream, path, req, res) {
  const { hostname, port } = new URL(upstream);
  const out = http.request(
    { hostname, port, path, method: req.method, headers: { ...req.headers, host: `${hostname}:${port}` } },
    (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
    },
  );
  out.on('error', () => {
    if (!res.headersSent) res.writeHead(502, { 'content-type': 'text/plain' });
    res.end('upstream does not answer\n');
  });
  res.on('close', () => out.destroy());
  req.pipe(out);
}

/** Listens on loopback; port 0 picks a free one. Resolves to the port. */
export const listen = (server, port = 0) =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server.address().port));
  });
