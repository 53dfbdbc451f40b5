package sqlite_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/curfew/store/sqlite"
)

func TestEveryStatementSearchesAnIndex(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db := plainly(t, path)
	planned := 0
	for _, statement := range sqlite.Statements() {
		if verb, _, _ := strings.Cut(statement, " "); strings.Contains("BEGIN COMMIT ROLLBACK SAVEPOINT RELEASE",
			verb) {
			continue // which have no plan
		}
		rows, err := db.Query(`EXPLAIN QUERY PLAN `+statement, make([]any, parameters(statement))...)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, step)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s\n\t%s", strings.Join(strings.Fields(statement), " "), strings.Join(plan, "\n\t"))
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN") && step != "SCAN CONSTANT ROW" {
				t.Errorf("%s\nscans: %s", statement, step)
			}
			if strings.HasPrefix(step, "SEARCH") {
				planned++
			}
			if strings.HasSuffix(step, "(issuer=?)") || strings.HasSuffix(step, "(issuer=? AND client=?)") {
				t.Errorf("%s\nsearches everybody of a client: %s", statement, step)
			}
			sorts := strings.Contains(step, "TEMP B-TREE")
			if byName := strings.Contains(statement, "INDEXED BY"); sorts && !byName {
				t.Errorf("%s\nsorts: %s", statement, step)
			}
		}
	}
	if planned < 15 {
		t.Errorf("only %d searches were seen: this test looks at the wrong thing", planned)
	}
}

// SQLite prepares such a statement anew at each call, since it plans with the value.
func TestNoStatementHasAParameterAloneAsItsLimit(t *testing.T) {
	t.Parallel()
	alone := regexp.MustCompile(`LIMIT \?\d*(\s*([^\s\d+]|$)|\s+OFFSET)`)
	for _, statement := range sqlite.Statements() {
		if alone.MatchString(statement) {
			t.Errorf("write LIMIT ?1 + 0 in\n%s", statement)
		}
	}
}

// parameters counts the parameters of a statement: the highest number, or the question marks.
func parameters(statement string) int {
	for n := 20; n > 0; n-- {
		if strings.Contains(statement, fmt.Sprint("?", n)) {
			return n
		}
	}
	return strings.Count(statement, "?")
}
