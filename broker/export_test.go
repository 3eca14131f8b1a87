package broker

// Covers is covers, for tests.
func Covers(allowed, wanted string) bool { return covers(allowed, wanted) }

// Records reads a stored value of each kind and writes it again, for tests: what was read is written the same, or refused.
func Records() map[string]func([]byte) ([]byte, error) {
	return map[string]func([]byte) ([]byte, error){
		"message": func(b []byte) ([]byte, error) {
			m, err := parseMessage(b)
			return appendMessage(nil, m), err
		},
		"session": func(b []byte) ([]byte, error) {
			s, err := parseSession(b)
			return s.marshal(), err
		},
		"subscription": func(b []byte) ([]byte, error) {
			s, err := parseSubscription("a/+", b)
			return marshalSubscription(s), err
		},
		"delivery": func(b []byte) ([]byte, error) {
			d, message, err := parseDelivery(1, b)
			return marshalDelivery(d, message), err
		},
	}
}

// Tidier is tidier, for tests.
type Tidier = tidier

// Due is due.
func (t *tidier) Due(handshakes uint64) bool { return t.due(handshakes) }

// PublishRates is how many identities there are rates of.
func (b *Broker) PublishRates() int {
	b.rates.mu.Lock()
	defer b.rates.mu.Unlock()
	return len(b.rates.of)
}
