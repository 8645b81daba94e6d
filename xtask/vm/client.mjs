// Node's fetch, which ignores proxy variables.
const answer = await fetch(process.argv[2], { headers: { Authorization: `Bearer ${process.env.VM_API_KEY}` } });
console.log(answer.status, await answer.text());
