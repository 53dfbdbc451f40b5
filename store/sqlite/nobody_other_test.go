//go:build !linux

package sqlite_test

func childNobody(string) int { return 2 }
