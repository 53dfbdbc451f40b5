package logout

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"example.com/curfew/oidc"
	"example.com/curfew/store"
)

// trouble is what is known to be wrong with the logout tokens of the providers, by the provider's name. The zero value
// is ready for use. It lasts as long as the process.
type trouble struct {
	mu       sync.Mutex
	settings map[string]string // the settings that are missing
	subjects map[string]bool   // whether logout tokens have another sub than sessions
}

// settingNeeded warns when a logout token of a provider failed only because a setting is missing: once, until a logout
// of that provider succeeds, or another setting is missing.
func (h *Handler) settingNeeded(r *http.Request, refused *oidc.Error) {
	if len(refused.Settings) == 0 {
		return
	}
	settings := strings.Join(refused.Settings, ", ")
	h.trouble.mu.Lock()
	defer h.trouble.mu.Unlock()
	if h.trouble.settings[refused.Provider] == settings {
		return
	}
	if h.trouble.settings == nil {
		h.trouble.settings = make(map[string]string)
	}
	h.trouble.settings[refused.Provider] = settings
	h.Site.Event(r, slog.LevelWarn, "logout_setting_needed", slog.String("provider", refused.Provider),
		slog.String("settings", settings), slog.String("hint", "the logouts of this provider are refused, and who signs "+
			"out there stays signed in here, until these settings are made for it"))
}

// Succeeded notes that a logout of a provider was carried out, here or on another replica: no setting is missing.
func (h *Handler) Succeeded(provider string) {
	h.trouble.mu.Lock()
	defer h.trouble.mu.Unlock()
	delete(h.trouble.settings, provider)
}

// Warnings returns what is wrong with the logout tokens of the providers, as far as this process has seen it: one
// sentence for each fault. A setting that is missing is listed until a logout of that provider succeeds.
func (h *Handler) Warnings() []string {
	h.trouble.mu.Lock()
	defer h.trouble.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h.trouble.settings)) {
		all = append(all, fmt.Sprintf("provider %s: its logout tokens are refused; set for it %s", name,
			h.trouble.settings[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(h.trouble.subjects)) {
		all = append(all, fmt.Sprintf("provider %s: %s", name, otherSubjects))
	}
	return all
}

const otherSubjects = "its logout tokens name people by another `sub` than its ID Tokens (a mapper, or pairwise " +
	"subjects): only those with a `sid` end a session here. Have it send the `sid` (session required), or the same `sub`"

// warnOfSubjects warns once when a token ended a session of another subject than its own.
func (h *Handler) warnOfSubjects(r *http.Request, t *oidc.LogoutToken, ended []store.Ended) {
	if t.Subject == "" || !slices.ContainsFunc(ended, func(e store.Ended) bool { return e.Subject != t.Subject }) {
		return
	}
	name := t.Provider.Name()
	h.trouble.mu.Lock()
	defer h.trouble.mu.Unlock()
	if h.trouble.subjects[name] {
		return
	}
	if h.trouble.subjects == nil {
		h.trouble.subjects = make(map[string]bool)
	}
	h.trouble.subjects[name] = true
	h.Site.Event(r, slog.LevelWarn, "logout_other_subject", slog.String("provider", name), slog.String("sub", t.Subject),
		slog.String("sid", t.SID), slog.String("hint", otherSubjects))
}

// namedNobody returns what to say of a token that ended no session, and how loud. Often that is as it should be: the
// session has ended already, or the person never came here.
func (h *Handler) namedNobody(t *oidc.LogoutToken) (slog.Level, string) {
	h.trouble.mu.Lock()
	others := h.trouble.subjects[t.Provider.Name()]
	h.trouble.mu.Unlock()
	switch {
	case t.Subject == "":
		return slog.LevelInfo, "it named no session here; one whose ID Token had no sid can be ended by a token with sub " +
			"alone"
	case t.SID == "" && others:
		return slog.LevelWarn, "it named nobody here: " + otherSubjects
	case t.SID == "":
		return slog.LevelInfo, "it named nobody here; if somebody stays signed in, see that the provider sends the same " +
			"sub in logout tokens as in ID Tokens"
	}
	return slog.LevelInfo, "it named no session here; if somebody stays signed in, see that the provider sends the same " +
		"sid in logout tokens as in ID Tokens"
}
