package main

import (
	"fmt"

	"example.com/curfew/cmd/curfew/internal/config"
)

// Limits on the connections of each listener.
const (
	maxPublic     = 16_000 // unless max_connections is set
	maxPrivate    = 64
	maxGRPC       = 1024
	minPublic     = 16
	reservedFiles = 256 // for the store, the providers and everything else
)

// maxConnections returns how many connections the public listener may have.
func maxConnections(c *config.Config) (int, error) {
	files, known := maxOpenFiles()
	if !known {
		files = 1 << 40
	}
	return connectionLimit(c, files)
}

// connectionLimit is maxConnections for a process that may open a number of files. A request to an app needs two
// connections, one on each side.
func connectionLimit(c *config.Config, files uint64) (int, error) {
	each, others := uint64(1), uint64(reservedFiles)
	if c.Upstream != nil || len(c.Routes) > 0 {
		each = 2
	}
	if c.AdminListen != "" {
		others += maxPrivate
	}
	if c.GRPCListen != "" {
		others += maxGRPC
	}
	if n := uint64(c.MaxConnections); n > 0 {
		if need := n*each + others; need > files {
			return 0, fmt.Errorf("max_connections: %d may need %d open files, and this process may have %d: allow "+
				"it more (ulimit -n; LimitNOFILE= of systemd), or set a lower number", n, need, files)
		}
		return c.MaxConnections, nil
	}
	room := (max(files, others) - others) / each
	return int(min(max(room, minPublic), maxPublic)), nil
}
