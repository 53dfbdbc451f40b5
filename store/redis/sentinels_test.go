package redis

import "testing"

// Each step is what some of the sentinels answer, and which servers are then taken for the master.
func TestWhichServerIsTheMasterForTheSentinels(t *testing.T) {
	t.Parallel()
	var s sentinels
	for _, step := range []struct {
		name    string
		answers map[string]view
		masters string
	}{
		{"nobody answers", nil, "abc"},
		{"nobody may be asked", map[string]view{"1": {epoch: -1}, "2": {epoch: -1}}, "abc"},
		{"all agree", map[string]view{"1": {epoch: 0, master: "a"}, "2": {epoch: 0, master: "a"}}, "a"},
		{"one knows of a failover", map[string]view{"1": {epoch: 0, master: "a"}, "2": {epoch: 1, master: "b"}}, "b"},
		{"only the other one answers", map[string]view{"1": {epoch: 0, master: "a"}}, "b"},
		{"nobody answers any more", nil, "b"},
		{"two call it differently", map[string]view{"1": {epoch: 1, master: "c"}, "2": {epoch: 1, master: "b"}}, "bc"},
		{"the next failover, known to one that is new", map[string]view{"3": {epoch: 2, master: "a"}}, "a"},
		{"all were made anew", map[string]view{"1": {epoch: 0, master: "c"}, "2": {epoch: 0, master: "c"},
			"3": {epoch: 0, master: "c"}}, "c"},
	} {
		got := ""
		for _, at := range []string{"a", "b", "c"} {
			if s.note(step.answers, at) {
				got += at
			}
		}
		if got != step.masters {
			t.Errorf("%s: %q may be the master, want %q", step.name, got, step.masters)
		}
	}
}
