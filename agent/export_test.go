package agent

import (
	"time"

	"pinseal/internal/mqtt"
)

// StopVerifying breaks step 5 as a fault would: what arrives is admitted, and waits for ever.
func (a *Agent) StopVerifying() { a.verifier.close() }

// VerifyAgain verifies what waits since StopVerifying.
func (a *Agent) VerifyAgain() { a.verifier.run() }

// AskTime asks for the time now.
func (a *Agent) AskTime() { a.askTimeOnce() }

// AgeQuestion makes the open question about the time older.
func (a *Agent) AgeQuestion(by time.Duration) {
	a.time.mu.Lock()
	defer a.time.mu.Unlock()
	a.time.asked = a.time.asked.Add(-by)
}

// Receive is a message from the broker.
func (a *Agent) Receive(m mqtt.Message) { a.receive(m, func() {}) }
