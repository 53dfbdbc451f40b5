package postgres

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// errUncertain: the change is committed on this server, and may be lost with it.
var errUncertain = errors.New("committed, but the server does not vouch for it")

// A server that was told to stop waiting for its synchronous standby commits all the same, and says so in a warning
// that comes before its answer is complete. A driver takes the answer for a success. So what the server warned of last
// is kept with the connection until the change is judged.
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

// harmless are the functions of the server whose warnings say nothing about a commit: RAISE WARNING of somebody's
// trigger, and those that ask for a vacuum before transaction numbers run out.
var harmless = map[string]bool{"exec_stmt_raise": true, "GetNewTransactionId": true, "GetNewMultiXactId": true}

// doubtful says whether a notice casts doubt on a change. The message is in whatever language lc_messages names, and
// the SQLSTATE of a cancelled wait is that of any warning (01000); the severity that is not translated and the name of
// the function can be relied on. A warning that is not known to be harmless casts doubt: a logout that is repeated
// costs less than one that is lost.
func doubtful(n *pgconn.Notice) bool {
	if n.SeverityUnlocalized == "" { // only something that is no PostgreSQL leaves it out
		return strings.HasPrefix(n.Code, "01") || strings.HasPrefix(n.Code, "57")
	}
	return n.SeverityUnlocalized == "WARNING" && !harmless[n.Routine]
}
