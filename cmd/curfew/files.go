package main

import (
	"fmt"

	"example.com/curfew/cmd/curfew/internal/config"
)

// How many connections the listeners take at a time.
const (
	maxPublic  = 10_000 // unless max_connections says otherwise
	maxPrivate = 64
	maxGRPC    = 1024
	minPublic  = 16
	otherFiles = 256 // for the store, the providers and everything else
)

// connections is how many connections the public listener takes at a time.
func connections(c *config.Config) (int, error) {
	files, known := openFiles()
	if !known {
		files = 1 << 40
	}
	return connectionsOf(c, files)
}

// connectionsOf is connections of a process that may open so many files. A request to an app takes two, one on each
// side.
func connectionsOf(c *config.Config, files uint64) (int, error) {
	each, others := uint64(1), uint64(otherFiles)
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
				"it more "+
				"(ulimit -n; LimitNOFILE= of systemd), or say less", n, need, files)
		}
		return c.MaxConnections, nil
	}
	room := (max(files, others) - others) / each
	return int(min(max(room, minPublic), maxPublic)), nil
}
