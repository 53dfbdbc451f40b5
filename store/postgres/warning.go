package postgres

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// errUncertain means that the change is committed on this server, but may be lost with it.
var errUncertain = errors.New("committed, but the server warns that it may be lost")

// When the wait for a synchronous standby is cancelled, the server commits all the same, and sends a warning before the
// result. The driver takes the result for a success. So the last warning is kept with the connection until the result
// of the change is checked.
const warningKey = "curfew.warning"

func forgetWarning(conn *pgxpool.Conn) { delete(conn.Conn().PgConn().CustomData(), warningKey) }

func warningOf(conn *pgxpool.Conn) *pgconn.Notice {
	n, _ := conn.Conn().PgConn().CustomData()[warningKey].(*pgconn.Notice)
	return n
}

// keepWarning is called for each notice, while the answer to a statement is being read.
func keepWarning(c *pgconn.PgConn, n *pgconn.Notice) {
	if doubtful(n) {
		c.CustomData()[warningKey] = n
	}
}

// harmless holds the functions of the server whose warnings have nothing to do with a commit: RAISE WARNING in a
// trigger, and requests to vacuum before transaction numbers run out.
var harmless = map[string]bool{"exec_stmt_raise": true, "GetNewTransactionId": true, "GetNewMultiXactId": true}

// doubtful reports whether a notice may mean that a change is not durable. The message is in the language of
// lc_messages, and the SQLSTATE of a cancelled wait is that of any warning (01000). Only the untranslated severity and
// the name of the function can be relied on. Every warning that is not known to be harmless counts: a repeated logout
// costs less than a lost one.
func doubtful(n *pgconn.Notice) bool {
	if n.SeverityUnlocalized == "" { // PostgreSQL always sends it; other servers may not
		return strings.HasPrefix(n.Code, "01") || strings.HasPrefix(n.Code, "57")
	}
	return n.SeverityUnlocalized == "WARNING" && !harmless[n.Routine]
}
