//go:build ncruces

package drivers

import (
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"
)

func ncruces() []driver {
	return []driver{{"ncruces", func(b *testing.B) database { return openStandard(b, "sqlite3_ncruces") }}}
}
