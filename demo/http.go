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

// static serves the style sheets and scripts, without a sign-in.
func static() http.Handler {
	serve := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		serve.ServeHTTP(w, r)
	})
}

// render writes a page. ancestors is the origin that may show it in a frame, or "".
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
	// No form-action: browsers apply it to the redirects after a form too, and signing out leads to the provider.
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "+
			"frame-src http://127.0.0.1:*; base-uri 'none'; frame-ancestors "+ancestors)
	_, _ = w.Write(body.Bytes())
}

// onlyAt redirects requests for another name of this machine ("localhost"). Under another name the apps would be
// cross-site on the page that shows all three, and browsers would not send their cookies.
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

// ownCookies separates the cookies of the sites. Cookies ignore ports, so the two apps, on one address, would overwrite
// each other's. In the browser each cookie has the name of its app as a prefix.
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

// cookieWriter adds a prefix to the name of every cookie that is set.
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

// FlushError is for [http.ResponseController].
func (w *cookieWriter) FlushError() error {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *cookieWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
