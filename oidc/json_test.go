package oidc

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

// reference decodes as decodeObject does, by way of a library.
func reference(data []byte) (map[string]any, bool) {
	if !utf8.Valid(data) || !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.SetNumberType(json.UnmarshalJSONNumber)
	var m map[string]any
	if d.Decode(&m) != nil || d.Decode(new(any)) != io.EOF {
		return nil, false
	}
	return m, true
}

// same compares the two, whose numbers have different types.
func same(ours, theirs any) bool {
	switch o := ours.(type) {
	case number:
		n, ok := theirs.(json.Number)
		return ok && string(o) == string(n)
	case map[string]any:
		m, ok := theirs.(map[string]any)
		if !ok || len(o) != len(m) {
			return false
		}
		for name, v := range o {
			w, there := m[name]
			if !there || !same(v, w) {
				return false
			}
		}
		return true
	case []any:
		l, ok := theirs.([]any)
		if !ok || len(o) != len(l) {
			return false
		}
		for i := range o {
			if !same(o[i], l[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(ours, theirs)
}

// FuzzDecodeObject: what is decoded here is what go-jose's JSON makes of it, and what one refuses the other refuses;
// but for half a surrogate pair, which is no text and which go-jose mends.
func FuzzDecodeObject(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a":-0.5e+10,"b":[1,2,{"c":null}],"d":true,"e":false}`,
		`{"a":"\u00e9\n\"\\\ud83d\ude00\ud800"}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":1}}`, `[{}]`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`,
		`{"a":+1}`, `{"a":1e}`, `{"a":-}`,
		`{"a":nul}`, `{"a":truex}`, `{"a":"` + "\x01" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a"`, `{"a":`, `{"a":1,}`,
		`{,}`, `{"a":[1,]}`, `{"a":[,1]}`,
		`{}{}`, `{}x`, `{} `, `{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `{"a":1}//`, "{\"a\":\"\xff\"}", "\ufeff{}",
		`{"":1}`, `{"a":"é\u2028"}`, `{"A":1,"a":2}`,
		`{"a":[[[[[[[[]]]]]]]]}`, `{"a":1E400}`, `{"a":"\`, `{"a":"\"`, "{\"a\":\"\x7f\"}", "{\n\t\"a\" : 1\r\n}",
		"{\"a\":1\v}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Count(data, []byte("{"))+bytes.Count(data, []byte("[")) >= maxDepth {
			return // go-jose knows no depth
		}
		ours, err := decodeObject(data)
		theirs, ok := reference(data)
		if err != nil && ok && bytes.Contains(bytes.ToLower(data), []byte(`\ud`)) {
			return
		}
		if (err == nil) != ok {
			t.Fatalf("%q: here %v; there %v", data, err, ok)
		}
		if err == nil && !same(map[string]any(ours), theirs) {
			t.Fatalf("%q: here %v; there %v", data, ours, theirs)
		}
	})
}

func TestObjectsThatLieTooDeepAreRefused(t *testing.T) {
	t.Parallel()
	nest := func(n int) []byte { return []byte(strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)) }
	if _, err := decodeObject(nest(maxDepth)); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeObject(nest(maxDepth + 1)); err == nil || !strings.Contains(err.Error(), "too deep") {
		t.Fatalf("got %v; want it refused as too deep", err)
	}
	wide := []byte(`{"a":[` + strings.Repeat("[],{},", 1000) + `1]}`)
	if _, err := decodeObject(wide); err != nil {
		t.Fatalf("depth is not width: %v", err)
	}
}
