package curfew_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/threat-model.md names is in the file where it says, and no name stands there without its file.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	const name = `\b(?:Test|Fuzz)[A-Z]\w*`
	cited := regexp.MustCompile("`([\\w./]+_test\\.go): ("+name+")`").FindAllStringSubmatch(string(text), -1)
	if all := regexp.MustCompile(name).FindAllString(string(text), -1); len(cited) == 0 || len(cited) != len(all) {
		t.Errorf("%d tests are named, %d of them in the form `file_test.go: TestName`", len(all), len(cited))
	}
	files := make(map[string]string)
	for _, c := range cited {
		file, test := c[1], c[2]
		source, read := files[file]
		if !read {
			b, err := os.ReadFile(filepath.FromSlash(file))
			if err != nil {
				t.Errorf("%s is named for %s: %v", file, test, err)
			}
			source = string(b)
			files[file] = source
		}
		if !strings.Contains(source, "\nfunc "+test+"(") {
			t.Errorf("%s holds no %s", file, test)
		}
	}
}
