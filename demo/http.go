package demo

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strings"
)

//go:embed assets pages
var files embed.FS

var pages = template.Must(template.ParseFS(files, "pages/*.html"))

// static serves what needs no sign-in: style sheets and scripts.
func static() http.Handler {
	serve := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		serve.ServeHTTP(w, r)
	})
}

// render answers with one of our pages. ancestors is the origin that may show it in a frame, or "".
func render(w http.ResponseWriter, page, ancestors string, data any) {
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, page, data); err != nil {
		panic(err)
	}
	if ancestors == "" {
		ancestors = "'none'"
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	// No form-action: browsers hold the redirects after a form to it, and signing out leads to the provider.
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "+
			"frame-src http://127.0.0.1:*; base-uri 'none'; frame-ancestors "+ancestors)
	_, _ = w.Write(body.Bytes())
}

// onlyAt keeps visitors on one name of this machine: whoever comes by another one ("localhost") is sent on. On the page
// that shows all three, the apps would be strangers to it under another name, and browsers would keep their cookies
// back.
func onlyAt(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == host:
			next.ServeHTTP(w, r)
		case r.Method == http.MethodGet:
			http.Redirect(w, r, "http://"+host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		default:
			http.Error(w, "this is http://"+host, http.StatusMisdirectedRequest)
		}
	})
}

// ownCookies gives a site cookies of its own. Cookies know hosts and no ports, so that the two apps, on one address,
// would overwrite each other's; here each cookie has the name of its app before its own, wherever the browser sees it.
func ownCookies(site string, next http.Handler) http.Handler {
	prefix := site + "-"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookies := r.Cookies()
		r = r.Clone(r.Context())
		r.Header.Del("Cookie")
		for _, c := range cookies {
			if name, ours := strings.CutPrefix(c.Name, prefix); ours {
				r.AddCookie(&http.Cookie{Name: name, Value: c.Value, Quoted: c.Quoted})
			}
		}
		next.ServeHTTP(&cookieWriter{ResponseWriter: w, prefix: prefix}, r)
	})
}

// cookieWriter puts a prefix before the name of every cookie that is set.
type cookieWriter struct {
	http.ResponseWriter
	prefix string
	done   bool
}

func (w *cookieWriter) WriteHeader(status int) {
	if !w.done && status >= 200 {
		w.done = true
		for i, line := range w.Header()["Set-Cookie"] {
			w.Header()["Set-Cookie"][i] = w.prefix + line
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *cookieWriter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (w *cookieWriter) FlushError() error {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *cookieWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
