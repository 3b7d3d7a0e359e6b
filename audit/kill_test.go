package audit

func child() bool { return false }
