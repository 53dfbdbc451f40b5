package stores

import "testing"

func TestAStoreIsShownWithoutItsPassword(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"memory:":                                  "memory:",
		"sqlite:/var/lib/curfew/curfew.db":         "sqlite:/var/lib/curfew/curfew.db",
		"postgres://curfew:s3cret@db/app":          "postgres://db/app",
		"postgresql://db:5432/app?password=s3cret": "postgresql://db:5432/app",
		"postgres://curfew:s3cret@a:1,b:x/app":     "postgres://a:1,b:x/app",
	} {
		s, err := Parse(address)
		if err != nil || s.String() != want {
			t.Errorf("%s is shown as %s (error %v), want %s", address, s, err, want)
		}
	}
}
