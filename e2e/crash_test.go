package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// The moment of the crash is not ours to choose: of many logouts at once, some were answered, some were not, and some
// were just being written. Whatever the provider counts as done stays done.
func TestOfManyLogoutsAtOnceEachThatWasAnsweredOutlivesACrash(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	g.start(t)
	const people, answered = 24, 4
	type question struct {
		to   string
		form url.Values
	}
	browsers, questions := map[string]*browser{}, map[string]question{}
	for i := range people {
		login := fmt.Sprintf("person%d", i)
		b := newBrowser(login)
		b.signIn(t, g, login)
		to, form := b.get(t, p.issuer+"/session/end").form(t, url.Values{"logout": {"yes"}})
		browsers[login], questions[login] = b, question{to, form}
	}
	bystander := newBrowser("a bystander")
	bystander.signIn(t, g, "bystander")

	from := p.said()
	var all sync.WaitGroup
	for login, q := range questions {
		all.Go(func() {
			if got, err := browsers[login].try(http.MethodPost, q.to, q.form); err != nil ||
				got.status != http.StatusSeeOther {
				t.Errorf("%s signs out at the provider: %v, %v", login, got, err)
			}
		})
	}
	for next, n := from, 0; n < answered; n++ {
		_, next = p.event(t, next, "backchannel.success")
	}
	g.kill()
	all.Wait()
	g.start(t)

	done, lost := p.events(t, from, "backchannel.success"), p.events(t, from, "backchannel.error")
	if len(done)+len(lost) != people {
		t.Fatalf("the provider counts %d logouts as done and %d as failed, want %d together", len(done), len(lost),
			people)
	}
	t.Logf("the crash came after %d of %d logouts were answered", len(done), people)
	for _, e := range done {
		browsers[e.Sub].mustBeOut(t, g)
	}
	bystander.mustBeIn(t, g, "bystander")

	// One that was not answered may have been written all the same. To send it again is welcome, and settles it.
	tokens := map[string]string{}
	for _, e := range p.events(t, from, "backchannel.post") {
		tokens[subject(t, e.Token)] = e.Token
	}
	for _, e := range lost {
		again := newBrowser("the provider").post(t, g.url+"/auth/backchannel-logout",
			url.Values{"logout_token": {tokens[e.Sub]}})
		written := again.status == http.StatusBadRequest && strings.Contains(again.body, "already processed")
		if again.status != http.StatusOK && !written {
			t.Errorf("the logout of %s is sent again: %v", e.Sub, again)
		}
		browsers[e.Sub].mustBeOut(t, g)
	}
	bystander.mustBeIn(t, g, "bystander")
}
