package signing

// RecentSignatures is how many signatures a Recent remembers.
const RecentSignatures = recentSignatures

// Len is how many signatures it remembers now.
func (r *Recent) Len() int { return len(r.good) }
