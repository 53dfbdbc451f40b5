package memory

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestQueueGivesWhatIsDueFirst(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var q queue[*remembered[int]]
		due := make(map[*remembered[int]]int64)
		var members []*remembered[int]
		time := rapid.Int64Range(0, 20)
		member := func(t *rapid.T) *remembered[int] {
			if len(members) == 0 {
				t.Skip("empty")
			}
			return rapid.SampledFrom(members).Draw(t, "member")
		}
		remove := func(m *remembered[int]) {
			q.drop(m)
			delete(due, m)
			members = slices.DeleteFunc(members, func(other *remembered[int]) bool { return other == m })
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				m := &remembered[int]{key: len(due)}
				due[m] = time.Draw(t, "due")
				members = append(members, m)
				q.add(m, due[m], 0)
			},
			"move": func(t *rapid.T) {
				m := member(t)
				due[m] = time.Draw(t, "due")
				q.move(m, due[m])
			},
			"drop": func(t *rapid.T) { remove(member(t)) },
			"take": func(t *rapid.T) {
				at := time.Draw(t, "at")
				first := int64(1 << 62)
				for _, d := range due {
					first = min(first, d)
				}
				m, ok := q.until(at)
				if ok != (first <= at) || ok && due[m] != first {
					t.Fatalf("until %d: got one: %v, due %d; the first is due at %d", at, ok, due[m], first)
				}
				if ok {
					remove(m)
				}
			},
			"": func(t *rapid.T) {
				for i, s := range q {
					if s.item.place != i || s.due != due[s.item] {
						t.Fatalf("a member at %d thinks it is at %d, due %d, want %d", i, s.item.place, s.due,
							due[s.item])
					}
				}
				if len(q) != len(due) {
					t.Fatalf("%d members, want %d", len(q), len(due))
				}
			},
		})
	})
}
