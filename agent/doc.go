// Package agent is the node's side of pinseal: it takes messages from an MQTT broker, acts on those that are genuine,
// permitted, fresh and new, and answers.
//
// # The way in
//
// Every message takes these steps, and the first that fails names the reason:
//
//	 1  at most 64 KiB, and not retained
//	 2  parsed strictly
//	 3  its key looked up by kid
//	 4  admitted to the bounded queue of its topic
//	 5  signature verified
//	 6  sealed for the topic it arrived on
//	 7  signer permitted on this output or telemetry topic
//	 8  fresh by the clock, or by the challenge; within the key's own rate
//	 9  decrypted if it is encrypted, command decoded, and this action permitted
//	10  sequence number not used before
//	11  recorded durably
//	12  acted on
//	13  answered with a sealed verdict
//
// Steps 1 to 9 change no state. Up to step 5 nothing is answered: there is a counter for every [signing.Reason] and a
// log line, of which there are never more than a few a second. From step 6 on the signer gets a verdict; for accepted
// telemetry the verified value is the answer, or a verdict if it is encrypted and stays so; and a [Receipt], if its
// quality of service asked for one.
//
// Signatures are verified in parallel, everything after that in the order of arrival: one order for each output, over
// all its topics. Many commands may wait for one commit of the replay database; they are acted on in order when it is
// done; one that has waited until it is stale, or its signer may no longer command that, is refused then, and its number
// stays used. The broker gets its acknowledgement after that commit, and verdicts and states leave on their own time: a slow
// or absent broker does not hold up a command.
//
// Step 12 is the [Actuator]'s. What a safety rule of the output forbids at that moment ends there as not-permitted, with
// the rule in the detail; its number stays used. What a rule only changes is applied, and the detail says how.
//
// # Rates
//
// A key has two allowances of the same size, [Policy].Rate: one for the commands and telemetry it has accepted, one
// for the refusals it is told. They are apart because a thief of old messages can cause refusals as fast as the broker
// lets it, and must not use up what the owner of the key may command. A refusal beyond the allowance is counted, not
// answered. A refusal by the replay database gives back what the message took from the first allowance.
//
// # Clock
//
// While [Clock] is not trusted, a command must carry the node's present challenge as its nonce, and its time is not
// judged. Telemetry is then accepted by its sequence number alone; a verified topic carries the bare value and has no
// room for a mark, so such messages are counted in [Stats].Unjudged and logged.
package agent
