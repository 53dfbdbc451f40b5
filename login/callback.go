package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"example.com/curfew/oidc"
)

// callback is the redirect URI, to which the provider sends the person back:
//
//  1. The state must belong to an attempt of this browser, made for this provider (RFC 9700 §4.7, §4.4.2). This is
//     checked before anything else.
//  2. Check the iss parameter (RFC 9207 §2.4), then the provider's error, then that there is a code.
//  3. Exchange the code, once (see exchangeOnce), and verify the ID Token (Core §3.1.3.7).
//  4. Request userinfo, which must be of the same subject (Core §5.3.2).
//  5. Check the claims that the site requires, and call OnLogin. If the person is refused here, the refresh token is
//     revoked.
//  6. Create the session, unless a logout that came meanwhile bars it. The browser gets a new bearer, and the session
//     that it had is ended.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, p *oidc.Provider) error {
	q, err := callbackParams(r)
	if err != nil {
		return err
	}
	a, err := h.findAttempt(r, q["state"])
	if err != nil {
		return h.unmatched(w, r, p, a, q, err)
	}
	if err := h.checkParams(r.Context(), p, a, q); err != nil {
		h.clearCookie(w, h.cookieName(a.Slot))
		if errors.Is(err, errNoSelection) {
			h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "again"), slog.String("provider", p.Name()),
				slog.String("error", err.Error()))
			redirect(w, h.link(a.again(withLogin(a.Prompt))))
			return nil
		}
		return h.endSilent(w, r, a, err)
	}
	o, err := h.exchangeOnce(r, p, a, q["code"])
	if errors.Is(err, errNotBegun) { // nothing was used up, so the page can be loaded again
		return h.storeFailure(p, a, err)
	}
	h.clearCookie(w, h.cookieName(a.Slot))
	if err == nil {
		err = h.respond(w, r, p, a, o)
	}
	return h.endSilent(w, r, a, err)
}

// callbackParams returns the parameters of the provider's answer. None may be repeated (RFC 6749 §3.1).
func callbackParams(r *http.Request) (map[string]string, error) {
	values, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "The address of this page is malformed.", err)
	}
	q := make(map[string]string)
	for _, name := range []string{"state", "iss", "error", "error_description", "code"} {
		if len(values[name]) > 1 {
			return nil, refuse(http.StatusBadRequest, "The address of this page is malformed.",
				fmt.Errorf("%s comes more than once", name))
		}
		q[name] = values.Get(name)
	}
	return q, nil
}

// checkParams does step 2 of callback, and the last check of step 1.
func (h *Handler) checkParams(ctx context.Context, p *oidc.Provider, a *attempt, q map[string]string) error {
	if a.Provider != p.Name() {
		return h.providerFailure(p, a, &oidc.Error{Check: "redirect_uri",
			Err: errors.New("the answer came to another provider's redirect URI")})
	}
	if err := p.CheckIssParameter(ctx, q["iss"]); err != nil {
		return h.providerFailure(p, a, err)
	}
	if refusesSelection(a, q["error"]) {
		return fmt.Errorf("%w: it answered %s", errNoSelection, quoteError(q["error"], q["error_description"]))
	}
	if q["error"] != "" {
		return h.declined(p, a, q["error"], q["error_description"])
	}
	if q["code"] == "" {
		return h.providerFailure(p, a, &oidc.Error{Check: "code",
			Err: errors.New("the answer has neither a code nor an error")})
	}
	return nil
}

// errNoSelection means that the provider does not support prompt=select_account.
var errNoSelection = errors.New("the provider does not support select_account: it is asked for login instead")

// refusesSelection reports whether an error may be about select_account in the request.
func refusesSelection(a *attempt, code string) bool {
	return withLogin(a.Prompt) != a.Prompt &&
		slices.Contains([]string{"invalid_request", "account_selection_required", "interaction_required",
			"login_required"}, code)
}
