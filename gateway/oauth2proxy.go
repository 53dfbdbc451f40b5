package gateway

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"example.com/curfew/web"
)

// mountOAuth2Proxy adds the paths of oauth2-proxy, for links and proxy files that still name them. They answer like
// Curfew's own routes, to which they lead.
func (h *Handler) mountOAuth2Proxy(mux *http.ServeMux) {
	login := h.Site.Page(h.oauth2ProxyLogin, http.MethodGet, http.MethodPost)
	mux.Handle(h.Site.Path("start"), login)
	mux.Handle(h.Site.Path("sign_in"), login)
	mux.Handle(h.Site.Path("sign_out"), h.Site.Page(h.oauth2ProxyLogout, http.MethodGet, http.MethodPost))
	mux.Handle(h.Site.Path("userinfo"), h.Site.JSON(h.oauth2ProxyUserinfo, http.MethodGet, http.MethodHead))
	if !h.NoForwardAuth {
		mux.HandleFunc(h.Site.Path("auth"), h.oauth2ProxyAuth)
	}
}

// oauth2ProxyLogin redirects to the sign-in. The page to return to is named by rd, or as oauth2-proxy does by
// X-Auth-Request-Redirect, or by X-Forwarded-Uri of a trusted proxy. Only a page of one of our hosts is kept.
func (h *Handler) oauth2ProxyLogin(w http.ResponseWriter, r *http.Request) error {
	query, malformed := web.ParseQuery(r.URL.RawQuery)
	field := func(name string) string { return cmp.Or(r.PostFormValue(name), query.Get(name)) }
	rd := cmp.Or(field("rd"), r.Header.Get("X-Auth-Request-Redirect"))
	if rd == "" && h.Site.FromTrustedProxy(r) {
		rd = r.Header.Get("X-Forwarded-Uri")
	}
	here, err := h.Site.HostOf(r)
	if err != nil {
		return err
	}
	there, to, err := h.Site.ParseReturnURL(rd, here)
	switch {
	case rd == "" && malformed != nil:
		to = h.returnLost(r, r.URL.RawQuery, malformed)
	case err != nil:
		to = h.returnLost(r, rd, err)
	case strings.HasPrefix(web.DecodedPath(to), h.Site.Path("")): // our own routes, such as this one
		to = h.Site.First()
	case there.Origin != here.Origin:
		to = there.Origin + to
	}
	login := url.Values{"return_to": {to}}
	if prompt := field("prompt"); prompt != "" {
		login.Set("prompt", prompt)
	}
	// 303: a page may have posted the form of a sign-in page of its own.
	http.Redirect(w, r, h.Site.Path("login")+"?"+login.Encode(), http.StatusSeeOther)
	return nil
}

// oauth2ProxyLogout redirects to the page that asks before it signs out: a link on another site, or an image, must not
// sign anybody out. rd is ignored: the provider leads back to the page that is registered there.
func (h *Handler) oauth2ProxyLogout(w http.ResponseWriter, r *http.Request) error {
	http.Redirect(w, r, h.Site.Path("logout"), http.StatusSeeOther)
	return nil
}

// oauth2ProxyAuth is /auth/verify with the status 202. The query can only restrict who may pass: oauth2-proxy's
// allowed_groups, allowed_emails and allowed_email_domains must all be met. Lists are separated by commas.
func (h *Handler) oauth2ProxyAuth(w http.ResponseWriter, r *http.Request) {
	var besides *rule
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		err = web.Fail(http.StatusBadRequest, "The query is invalid.", err)
		h.checked(r, "verify", h.begins(), nil, err)
		h.deny(w, r, r.Method, err, nil)
		return
	}
	restricted := Rule{}
	if values, ok := commaList(q, "allowed_groups"); ok {
		restricted.Groups, besides = values, &rule{}
	}
	if values, ok := commaList(q, "allowed_email_domains"); ok {
		restricted.EmailDomains, besides = values, &rule{}
	}
	if values, ok := commaList(q, "allowed_emails"); ok {
		restricted.Claims, besides = map[string][]string{"email": values}, &rule{}
	}
	if besides != nil {
		besides.Rule = restricted
	}
	h.answer(w, r, http.StatusAccepted, besides)
}

// commaList returns the values of a parameter, and whether it has any.
func commaList(q url.Values, name string) (values []string, ok bool) {
	for _, v := range q[name] {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				values = append(values, item)
			}
		}
	}
	return values, len(values) > 0
}

// oauth2ProxyUserinfo returns what oauth2-proxy does about a page's own session.
func (h *Handler) oauth2ProxyUserinfo(w http.ResponseWriter, r *http.Request) error {
	s, err := h.peek(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(struct {
		User     string   `json:"user"`
		Email    string   `json:"email"`
		Groups   []string `json:"groups,omitempty"`
		Username string   `json:"preferredUsername,omitempty"`
	}{s.Subject, s.Email(), h.groups(s), s.Claim("preferred_username")})
}
