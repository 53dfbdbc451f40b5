package fanout_test

const childStep = "CURFEW_FANOUT_TEST_STEP"

func childMain(step string) int { return 0 }
