// What the fields hold at first: by model, else by task.

// The mean of the third speaker's training utterances, to a tenth.
const VOWELS = [
  [0.6, -0.1, 0, -0.7, 0, -0.6, -0.1, 0.2, -0.1, -0.1, -0.1, 0.1], [0.6, -0.2, -0.1, -0.7, 0.1, -0.5, -0.1, 0.2, -0.1, -0.2, -0.1, 0.1],
  [0.5, -0.3, -0.1, -0.6, 0.2, -0.5, 0, 0.1, -0.3, -0.2, -0.1, 0.2], [0.4, -0.3, 0, -0.4, 0.3, -0.4, 0, -0.1, -0.4, -0.2, 0, 0.2],
  [0.3, -0.4, 0.1, -0.2, 0.4, -0.4, 0, -0.2, -0.4, -0.1, 0, 0.1], [0.1, -0.4, 0.2, 0, 0.5, -0.4, 0, -0.3, -0.4, 0, 0, 0],
  [0, -0.4, 0.3, 0.1, 0.5, -0.4, 0, -0.3, -0.3, 0, -0.1, -0.1],
];

const MODELS = {
  prose: {
    prompt: 'ROMEO:\n', maxTokens: 400,
    lines: ['To be, or not to be, that is the question', 'Shall I die, or live? I ask', 'The letter is here, my lord'],
  },
  g2p: { source: 'unrolled', target: 'AH N R OW L D', lines: ['night', 'knight', 'nation'] },
  translate: {
    source: 'In the beginning, God created the heavens and the earth.', target: 'En el principio creó Dios los cielos y la tierra.',
    lines: ['The king is dead.', 'The king has died.', 'He went into the city.'],
  },
  sentiment: { text: 'The food was not bad, great in fact' },
  nationality: { text: 'Sergei Ivanov' },
  cloze: { text: 'The man went to the ___ to withdraw money' },
  food: {
    target: 'Cheese, cheddar',
    vector: {
      'Protein (g)': 22.87, 'Total lipid (fat) (g)': 33.31, 'Carbohydrate, by difference (g)': 3.09, 'Ash (g)': 3.71,
      'Energy (kcal)': 404, 'Water (g)': 37.02, 'Energy (kJ)': 1689, 'Sugars, total (g)': 0.48, 'Fiber, total dietary (g)': 0, 'Calcium, Ca (mg)': 710, 'Iron, Fe (mg)': 0.14,
      'Magnesium, Mg (mg)': 27, 'Phosphorus, P (mg)': 455, 'Potassium, K (mg)': 76, 'Sodium, Na (mg)': 653,
      'Zinc, Zn (mg)': 3.64, 'Copper, Cu (mg)': 0.03, 'Vitamin A, IU (IU)': 1242, 'Vitamin C, total ascorbic acid (mg)': 0, 'Thiamin (mg)': 0.029,
      'Riboflavin (mg)': 0.428, 'Niacin (mg)': 0.059, 'Vitamin B-6 (mg)': 0.066, 'Folate, total (µg)': 27,
      'Vitamin B-12 (µg)': 1.1, 'Cholesterol (mg)': 99, 'Fatty acids, total saturated (g)': 18.867,
      'Fatty acids, total monounsaturated (g)': 9.246, 'Fatty acids, total polyunsaturated (g)': 1.421,
    },
  },
  vowels: { frames: VOWELS },
  'vowels-online': { frames: VOWELS },
  // Airline passengers of 1955 to 1958, in thousands (Box and Jenkins 1976, series G).
  monthly: {
    start: '1955-01',
    values: [242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278, 284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306, 315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336, 340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337],
  },
};

const LINES = ['The man went to the bank', 'The woman went to the bank', 'It rains'];

const TASKS = {
  TASK_GENERATE: { prompt: 'The man went to the ', maxTokens: 200, text: 'To be, or not to be, that is the question.', lines: LINES },
  TASK_SEQ2SEQ: { source: 'unrolled', target: '', lines: LINES },
  TASK_VECTOR_TO_SEQUENCE: { vector: {}, target: '' },
  TASK_CLASSIFY: { text: 'The man went to the bank' },
  TASK_TAG: { text: 'The man went to the bank', lines: LINES },
  TASK_FILL: { text: 'The man went to the ___' },
  TASK_FORECAST: { start: '', values: [3, 5, 4, 6, 5, 7, 6, 8, 7, 9, 8, 10, 9, 11, 10, 12, 11, 13] },
};

export const example = (model) => ({ ...TASKS[model.task], ...MODELS[model.name] });
