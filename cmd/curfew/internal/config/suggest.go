package config

import (
	"fmt"
	"maps"
	"slices"
)

// Nearest returns a hint to the most similar known name, if one is similar, to put after a message.
func Nearest(key string, known map[string]bool) string {
	best, least := "", 3
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(key, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance returns how many letters to change, add or remove to get from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
