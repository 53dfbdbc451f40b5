package gateway_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"example.com/curfew/gateway"
)

func TestHowValuesAreWrittenIntoHeaders(t *testing.T) {
	t.Parallel()
	type want map[gateway.Encoding]string
	for _, row := range []struct {
		name, separator string
		groups          []any
		name_           string
		groupsAre       want
		nameIs          want
	}{
		{"plain ASCII is the same in all", ",", []any{"staff", "it ops"}, "Ada",
			want{"utf-8": "staff,it ops", "percent": "staff,it ops", "rfc8187": "staff,it ops"},
			want{"utf-8": "Ada", "percent": "Ada", "rfc8187": "Ada"}},
		{"other letters", ",", []any{"Köche"}, "Zoë",
			want{"utf-8": "Köche", "percent": "K%C3%B6che", "rfc8187": "UTF-8''K%C3%B6che"},
			want{"utf-8": "Zoë", "percent": "Zo%C3%AB", "rfc8187": "UTF-8''Zo%C3%AB"}},
		{"a name of LDAP", ",", []any{"cn=it,dc=corp", "staff"}, "a,b",
			want{"utf-8": "staff", "percent": "cn=it%2Cdc=corp,staff", "rfc8187": "UTF-8''cn%3Dit%2Cdc%3Dcorp,staff"},
			want{"utf-8": "a,b", "percent": "a,b", "rfc8187": "a,b"}},
		{"a name of LDAP and another separator", ";", []any{"cn=it,dc=corp", "a;b"}, "Ada",
			want{"utf-8": "cn=it,dc=corp", "percent": "cn=it,dc=corp;a%3Bb", "rfc8187": "cn=it,dc=corp;UTF-8''a%3Bb"},
			want{"utf-8": "Ada", "percent": "Ada", "rfc8187": "Ada"}},
		{"a separator that RFC 8187 would leave", "|", []any{"a|ö"}, "Ada",
			want{"utf-8": "", "percent": "a%7C%C3%B6", "rfc8187": "UTF-8''a%7C%C3%B6"},
			want{"utf-8": "Ada", "percent": "Ada", "rfc8187": "Ada"}},
		{"what looks encoded", ",", []any{"50%", "%2C"}, "utf-8''x",
			want{"utf-8": "50%,%2C", "percent": "50%25,%252C", "rfc8187": "50%,%2C"},
			want{"utf-8": "utf-8''x", "percent": "utf-8''x", "rfc8187": "UTF-8''utf-8%27%27x"}},
		{"space around, and the end of a line", ",", []any{" admins", "a\r\nX-Evil: 1"}, "Ada\n",
			want{"utf-8": "", "percent": "%20admins,a%0D%0AX-Evil: 1",
				"rfc8187": "UTF-8''%20admins,UTF-8''a%0D%0AX-Evil%3A%201"},
			want{"utf-8": "", "percent": "Ada%0A", "rfc8187": "UTF-8''Ada%0A"}},
		{"empty entries", ",", []any{"", "staff"}, "",
			want{"utf-8": "staff", "percent": "staff", "rfc8187": "staff"},
			want{"utf-8": "", "percent": "", "rfc8187": ""}},
	} {
		for encoding := range row.groupsAre {
			st := newStage(t)
			id, err := st.gateway.Identity.WithSeparator(row.separator)
			if err == nil {
				id, err = id.WithEncoding(encoding)
			}
			if err != nil {
				t.Fatal(err)
			}
			st.gateway.Identity = id
			b, _ := st.signIn(map[string]any{"name": row.name_, "groups": row.groups})
			if resp, body := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != 200 {
				t.Fatalf("%s: %d %s", row.name, resp.StatusCode, body)
			}
			got := (<-st.seen).Header
			if g := got.Get("X-Auth-Groups"); g != row.groupsAre[encoding] {
				t.Errorf("%s, %s: the groups are %q, want %q", row.name, encoding, g, row.groupsAre[encoding])
			}
			if n := got.Get("X-Auth-Name"); n != row.nameIs[encoding] {
				t.Errorf("%s, %s: the name is %q, want %q", row.name, encoding, n, row.nameIs[encoding])
			}
			if encoding == gateway.Percent { // what the page says about reading it
				var read []string
				for entry := range strings.SplitSeq(got.Get("X-Auth-Groups"), row.separator) {
					entry, err := url.PathUnescape(entry)
					if err != nil {
						t.Error(err)
					}
					read = append(read, entry)
				}
				for _, g := range row.groups {
					if g != "" && !slices.Contains(read, g.(string)) {
						t.Errorf("%s: %q is lost, in %q", row.name, g, read)
					}
				}
			}
		}
	}
	for _, wrong := range []string{"", ", ", "a", " ", "%", "\"", "\\", "é", "\n"} {
		if _, err := (gateway.Identity{}).WithSeparator(wrong); err == nil {
			t.Errorf("%q is taken as a separator", wrong)
		}
	}
	if _, err := (gateway.Identity{}).WithEncoding("latin-1"); err == nil {
		t.Error("latin-1 is taken as an encoding")
	}
}

func TestWhatTheAppIsNotToldIsLoggedOnceForEachHeader(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(map[string]any{"name": "Ada\n", "groups": []any{"cn=it,dc=corp", "staff", "a,b"}})
	for range 3 {
		st.send("GET", "/", "Cookie", cookie(b))
	}
	for header, values := range map[string]string{"X-Auth-Groups": "2", "X-Auth-Name": "1"} {
		if n := strings.Count(st.Log.String(), `"header":"`+header+`","values":`+values+`,`); n != 1 {
			t.Errorf("%s: logged %d times, want once:\n%s", header, n, st.Log.String())
		}
	}
	last := st.Log.Last("identity_dropped")
	if last["level"] != "WARN" || strings.Contains(st.Log.String(), "dc=corp") {
		t.Errorf("logged as %v", last)
	}
	if resp, _ := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != http.StatusOK {
		t.Errorf("answered %d", resp.StatusCode)
	}
}
